"""What `apr corpus` wrote beside a corpus: the lists that apply to it, and what certifies the rest.

Found by name and hash alone, so that it can be advised; whoever applies it checks the documents.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from apr.corpus.certificate import Certificate, is_certificate, read_certificate
from apr.corpus.removals import is_removal_list
from apr.errors import Refusal
from apr.files import sha256_file


@dataclass(frozen=True)
class Cleaning:
    """Removal lists, and the certificate of what they leave, where there is one."""

    removals: tuple[Path, ...] = ()
    certificate: Path | None = None


def cleaning_beside(corpus: Sequence[Path | str]) -> Cleaning:
    """The lists of the last certificate beside a corpus; without certificates, all lists there.

    Empty where the parts of the corpus lie apart, or where two certificates are the last ones.
    """
    places = {path.absolute().parent for path in corpus if isinstance(path, Path)}
    if len(places) != 1 or not all(isinstance(path, Path) for path in corpus):
        return Cleaning()
    (place,) = places
    # Spelled as the corpus was, for a person to paste.
    spelled = next(path.parent for path in corpus if isinstance(path, Path))
    try:
        names = sorted(path.name for path in place.iterdir() if path.is_file())
    except OSError:
        return Cleaning()
    inputs = {path.name for path in corpus if isinstance(path, Path)}
    lists = [
        spelled / name
        for name in names
        if name.endswith(".jsonl") and name not in inputs and is_removal_list(spelled / name)
    ]
    certificates = _certificates(spelled / name for name in names if name.endswith(".json"))
    if not any(found.removals for found, _ in certificates.values()):
        return Cleaning(removals=tuple(lists))
    refined = {found.refines for found, _ in certificates.values()}
    by_hash = {sha256_file(path): path for path in lists}
    last = [
        Cleaning(tuple(by_hash[each.sha256] for each in found.removals), path)
        for sha256, (found, path) in certificates.items()
        if sha256 not in refined and all(each.sha256 in by_hash for each in found.removals)
    ]
    return last[0] if len(last) == 1 else Cleaning()


def _certificates(paths: Iterable[Path]) -> dict[str, tuple[Certificate, Path]]:
    found: dict[str, tuple[Certificate, Path]] = {}
    for path in paths:
        with suppress(Refusal):
            if is_certificate(path):
                certificate, sha256 = read_certificate(path)
                found[sha256] = (certificate, path)
    return found
