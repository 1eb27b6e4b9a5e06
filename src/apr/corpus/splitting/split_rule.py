"""Which side of a split a document is on: a function of its group and three settings, no more.

Because nothing else decides, adding data, reading it in another order or on another machine never
moves a document, and the documents of one group are never separated.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from apr.corpus.certificate import GroupKind, Side
from apr.corpus.reading.documents import Document
from apr.corpus.reading.listed import ListedCorpus
from apr.corpus.reading.locations import location_text
from apr.corpus.similarity.normal_form import normal_hash
from apr.errors import Refusal, UsageRefusal
from apr.progress import Report, silent

_HASH_BYTES = 8


@dataclass(frozen=True)
class SplitRule:
    """The settings of a split: what stays together, how much is held out, and the draw."""

    group: GroupKind
    fraction: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise UsageRefusal(
                "corpus.split-fraction",
                "--val-fraction",
                found=self.fraction,
                expected="a share between 0 and 1",
                fix="hold out a hundredth: --val-fraction 0.01",
            )

    def side_of(self, group: str) -> Side:
        """The side of every document of this group."""
        key = f"apr-split-{self.seed}".encode()
        digest = hashlib.blake2b(group.encode("utf-8"), digest_size=_HASH_BYTES, key=key).digest()
        drawn = int.from_bytes(digest, "big") / (1 << 8 * _HASH_BYTES)
        return "held-out" if drawn < self.fraction else "train"


class GroupedCorpus:
    """The documents of a corpus, each with the group that a rule keeps together.

    A row's group is what its field of that name holds. A file's is the first level below the path
    that was named (`repo`), the directory that holds it (`package`), or its text (`file`).

    Refuses: corpus.group-unknown.
    """

    def __init__(self, corpus: ListedCorpus, kind: GroupKind) -> None:
        self._corpus = corpus
        self._kind: GroupKind = kind
        # Everything lies below ".", so it is asked last.
        self._roots = sorted(map(location_text, corpus.paths), key=lambda root: root == ".")
        self._file_groups = {file.location: file.group for file in corpus.files}

    def documents(self, activity: str, progress: Report = silent) -> Iterator[Document]:
        """Every document, in the order of the paths."""
        for document in self._corpus.documents(activity, progress):
            yield replace(document, group=self._group(document))

    def _group(self, document: Document) -> str:
        if self._kind == "file":
            return normal_hash(document.text).hex()
        row_alone = f"{self._file_groups[document.source]}:{document.row}"
        if document.row is not None and document.group != row_alone:
            return document.group
        below, _, _ = _below(document.source, self._roots).rpartition("/")
        if document.row is not None and not below:
            self._refuse_alone(document)
        if self._kind == "package":
            return below or "."
        return below.partition("/")[0] if document.row is not None else document.group

    def _refuse_alone(self, document: Document) -> None:
        raise Refusal(
            "corpus.group-unknown",
            document.place,
            found=f"a row that does not say which {self._kind} it belongs to",
            expected=f"a text field that names the {self._kind}",
            fix="name the field with --group-field, or let each text stand alone: --group file",
        )


def _below(location: str, roots: Sequence[str]) -> str:
    """The part of a location below the path it was found through; its name if it was named."""
    for root in roots:
        above = "" if root == "." else root.rstrip("/") + "/"
        if location.startswith(above) and location != root:
            return location.removeprefix(above).removeprefix("./")
    return Path(location).name
