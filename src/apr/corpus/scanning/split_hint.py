"""How a corpus may be split so that something is likely to be held out.

A split by groups needs enough of them: of n groups a share f leaves none with probability
(1 - f)^n. The coarsest kind of group is suggested of which there are enough for ten to be expected
in a share of at most a tenth.
"""

import math

from apr.corpus.certificate import GroupKind
from apr.corpus.document import Document

REPO_FIELD = "repo"
"""The field of a row that a split by repository reads when it is told no other."""

_EXPECTED_GROUPS = 10
_SMALLEST_SHARE = 0.01
_LARGEST_SHARE = 0.1
# More would ask for no smaller share.
_MOST_COUNTED = math.ceil(_EXPECTED_GROUPS / _SMALLEST_SHARE)


class GroupCount:
    """Counts the groups that documents would have in a split, as far as that matters."""

    def __init__(self) -> None:
        self._repos: set[str] = set()
        self._packages: set[str] = set()
        self._num_documents = 0
        self._has_rows = False
        self._has_rows_alone = False

    def add(self, document: Document, repo: object) -> None:
        """Count one document; `repo` is what its row says."""
        self._num_documents += 1
        if document.row is None:
            _add(self._repos, document.group)
            _add(self._packages, document.source.rpartition("/")[0])
            return
        self._has_rows = True
        if isinstance(repo, str) and repo:
            _add(self._repos, repo)
        else:
            self._has_rows_alone = True

    def suggestion(self) -> tuple[GroupKind, float]:
        """The kind of group and the share to hold out."""
        counts: dict[GroupKind, int] = {
            # A split refuses rows that do not say where they belong.
            "repo": 0 if self._has_rows_alone else len(self._repos),
            "package": 0 if self._has_rows else len(self._packages),
            "file": self._num_documents,
        }
        for kind, count in counts.items():
            if count * _LARGEST_SHARE >= _EXPECTED_GROUPS:
                share = math.ceil(100 * _EXPECTED_GROUPS / count) / 100
                return kind, max(_SMALLEST_SHARE, share)
        return "file", _LARGEST_SHARE


def _add(groups: set[str], group: str) -> None:
    if len(groups) < _MOST_COUNTED:
        groups.add(group)
