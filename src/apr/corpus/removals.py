"""Removal lists: which documents must not be trained on, by the hash of their text, and why.

A list is JSON lines with `hash` (32 hex digits) and `reason`; what else stands there is for people.
It says nothing of files and rows, so it holds wherever the documents lie and however they are cut
into tasks. Every copy of a listed text is removed, but for the entries with `"keep": "first"`: of
such a text the first copy in the order of the input stays. Which copy that is, a task of many
cannot see; whoever runs tasks finds out first which one owns each text of `Removals.copies`.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any, NoReturn, cast

from apr.corpus.certificate import RemovalList
from apr.corpus.reading.blocks import RawBlocks
from apr.corpus.reading.compressed import DamagedStream, unpack
from apr.corpus.reading.documents import Document, document_hash
from apr.corpus.reading.jsonl import write_objects
from apr.corpus.reading.lines import OverlongLine, split_lines
from apr.corpus.reading.locations import location_text
from apr.corpus.reading.tree import file_format
from apr.errors import DamagedFile, Refusal
from apr.files import io_refusals, parse_json, require_exists, sha256_file

_HASH = re.compile(r"[0-9a-f]{32}")
_REASON = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Removal:
    """One document that is removed, and the one it repeats, where there is one."""

    hash: bytes
    reason: str
    source: str
    row: int | None
    keep_first: bool = False
    """Whether the text as such stays: one copy of it is removed for another."""
    kept: Mapping[str, Any] | None = None
    """Source, row and hash of the document that it repeats."""
    score: Mapping[str, Any] | None = None
    """How much it repeats it, in the measure of whoever made the list."""

    def as_dict(self) -> dict[str, Any]:
        """The line of a list."""
        keep = {"keep": "first"} if self.keep_first else {}
        place = {"source": self.source} | ({} if self.row is None else {"row": self.row})
        kept = {} if self.kept is None else {"kept": dict(self.kept)}
        return (
            {"hash": self.hash.hex(), "reason": self.reason}
            | keep
            | place
            | kept
            | dict(self.score or {})
        )


def write_removals(path: Path, removals: Iterable[Removal]) -> RemovalList:
    """Write a list and return what a certificate says of it.

    Refuses: files.exists, files.io-failed.
    Writes: `path`, whole or not at all.
    """
    num_entries = write_objects(path, (each.as_dict() for each in removals))
    return RemovalList(sha256=sha256_file(path), num_entries=num_entries)


# Why a text is removed, and which lists name it, as bits; one pair serves many texts.
_Verdict = tuple[str, int]


class Removals:
    """Some removal lists, read; by default none, which removes nothing."""

    def __init__(self) -> None:
        self.lists: list[RemovalList] = []
        self._reasons: dict[bytes, _Verdict] = {}
        self._copies: dict[bytes, _Verdict] = {}
        self._verdicts: dict[_Verdict, _Verdict] = {}

    @classmethod
    def load(cls, paths: Sequence[Path]) -> "Removals":
        """Read lists strictly; a text that any of them removes altogether has no copy left.

        Refuses: files.not-found, files.io-failed, corpus.removals-damaged.
        """
        removals = cls()
        for path in paths:
            num_entries = 0
            for number, line in enumerate(_read_lines(path), start=1):
                removals._add(line, f"{path}:{number}")
                num_entries += 1
            removals.lists.append(RemovalList(sha256=sha256_file(path), num_entries=num_entries))
        for digest in removals._reasons.keys() & removals._copies.keys():
            _, bits = removals._copies.pop(digest)
            removals._put(removals._reasons, digest, removals._reasons[digest][0], bits)
        return removals

    @property
    def copies(self) -> Collection[bytes]:
        """Hashes of the texts of which one copy stays."""
        return self._copies.keys()

    def find_copies(self, documents: Iterable[Document]) -> set[bytes]:
        """The hashes of `copies` among some documents: the first task that has one owns it."""
        return self._copies.keys() & {document_hash(document.text) for document in documents}

    def filter(self, *, owned: Collection[bytes] | None = None) -> "RemovalFilter":
        """A filter for one pass over documents in their order.

        `owned` are those of `copies` whose first copy is in this pass; by default all of them, as
        when the pass is over the whole input.
        """
        return RemovalFilter(self._reasons, self._copies, owned)

    def _add(self, line: bytes, where: str) -> None:
        try:
            value: Any = parse_json(line)
        except ValueError as err:
            _refuse(where, str(err), err)
        if not isinstance(value, dict):
            _refuse(where, f"{type(value).__name__}, not an object")
        entry = cast("dict[str, Any]", value)
        digest, reason, keep = entry.get("hash"), entry.get("reason"), entry.get("keep")
        if not isinstance(digest, str) or not _HASH.fullmatch(digest):
            _refuse(where, f"hash {digest!r}")
        if not isinstance(reason, str) or not _REASON.fullmatch(reason):
            _refuse(where, f"reason {reason!r}")
        if keep not in (None, "first"):
            _refuse(where, f"keep {keep!r}")
        chosen = self._reasons if keep is None else self._copies
        self._put(chosen, bytes.fromhex(digest), intern(reason), 1 << len(self.lists))

    def _put(self, chosen: dict[bytes, _Verdict], digest: bytes, reason: str, bits: int) -> None:
        first_reason, other_bits = chosen.get(digest, (reason, 0))
        verdict = (first_reason, bits | other_bits)
        chosen[digest] = self._verdicts.setdefault(verdict, verdict)


class RemovalFilter:
    """Says of each document of one pass whether it is removed; ask once for each, in order."""

    def __init__(
        self,
        reasons: Mapping[bytes, _Verdict],
        copies: Mapping[bytes, _Verdict],
        owned: Collection[bytes] | None,
    ) -> None:
        self._reasons = reasons
        self._copies = copies
        self._owned = copies.keys() if owned is None else owned
        self._seen: set[bytes] = set()
        self._matched = 0

    @property
    def matched_lists(self) -> list[int]:
        """Which lists name a document of this pass, removed or not; counted from 0."""
        return [
            number for number in range(self._matched.bit_length()) if self._matched >> number & 1
        ]

    def reason(self, digest: bytes) -> str | None:
        """Why the next document, which has this document hash, is removed; None when it stays."""
        verdict = self._reasons.get(digest) or self._copies.get(digest)
        if verdict is None:
            return None
        reason, bits = verdict
        self._matched |= bits
        is_first = digest in self._copies and digest in self._owned and digest not in self._seen
        if is_first:
            self._seen.add(digest)
        return None if is_first else reason


def require_matched(
    paths: Sequence[Path], lists: Sequence[RemovalList], matched: Collection[int]
) -> None:
    """Refuse a list with entries that names not one of all documents: it is of another corpus.

    `matched` are the lists that name one, as the filters of all passes found.

    Refuses: corpus.removals-unmatched.
    """
    for number, (path, listed) in enumerate(zip(paths, lists, strict=True)):
        if listed.num_entries and number not in matched:
            raise Refusal(
                "corpus.removals-unmatched",
                path,
                found=f"{listed.num_entries} entries, and none names a document of this corpus",
                expected="at least one, or an empty list",
                fix="name the list that was made of this corpus, with the same --content-field; "
                "if nothing is to be removed, leave --remove out",
            )


def is_removal_list(path: Path) -> bool:
    """Whether a file is a whole removal list; never raises a refusal."""
    try:
        Removals.load([path])
    except Refusal:
        return False
    return True


def _read_lines(path: Path) -> Iterator[bytes]:
    require_exists(path, "a removal list")
    if not path.is_file():
        _refuse(str(path), "not a regular file")
    with io_refusals(path):
        size_bytes = path.stat().st_size
    location = location_text(path)
    blocks = RawBlocks(location, start=0, stop=size_bytes, size_bytes=size_bytes)
    try:
        for lines in split_lines(unpack(blocks, file_format(path.name)[1])):
            if isinstance(lines, OverlongLine):
                _refuse(str(path), f"a line of {lines.size_bytes} bytes")
            yield from lines
    except DamagedStream as fault:
        _refuse(str(path), fault.found, fault)


def _refuse(where: str, found: str, cause: Exception | None = None) -> NoReturn:
    raise DamagedFile(
        "corpus.removals-damaged",
        where,
        found=found,
        expected='a line such as {"hash": "<32 hex digits>", "reason": "duplicate"}',
        fix="restore the list, or make it again: apr corpus dedup or decontaminate",
    ) from cause
