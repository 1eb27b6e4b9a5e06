"""documents.jsonl.zst: where each document came from, and what became of the rows that are none.

One JSON object per row that was read, in the order of reading: its source, its row where the
source has several, where the document was before if the row says so, and why it was left out where
it was. Objects that were not left out stand for the documents of the shards, one to one and in
order.

The file is a witness, not part of the data's identity: shards can be read without it, and then
nothing here pretends to know a source.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import orjson

from apr.corpus.reading.compressed import DamagedStream, unpack
from apr.corpus.reading.lines import OverlongLine, split_lines
from apr.errors import DamagedFile
from apr.files import io_refusals

PROVENANCE_NAME = "documents.jsonl.zst"

# A path has at most 4096 bytes, and JSON may spell a byte with six characters.
_LINE_LIMIT_BYTES = 64 << 10
_READ_BYTES = 1 << 16

_REASON = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_KEYS = {"source": str, "row": int, "origin": str, "dropped": str, "quarantined": str}


@dataclass(frozen=True, slots=True)
class Row:
    """One row that was read, and its fate."""

    source: str
    row: int | None = None
    dropped: str | None = None
    quarantined: str | None = None
    origin: str | None = None
    """Where the document was before, as its row says."""

    @property
    def is_document(self) -> bool:
        """Whether the row became a document of the shards."""
        return self.dropped is None and self.quarantined is None

    @property
    def place(self) -> str:
        """The source, with the row where there is one."""
        return self.source if self.row is None else f"{self.source}:{self.row}"


def has_provenance(directory: Path) -> bool:
    """Whether the directory says where its documents came from."""
    return (directory / PROVENANCE_NAME).exists()


def read_provenance(directory: Path) -> Iterator[Row]:
    """Stream every row that was read, in order, in bounded memory.

    Refuses: files.not-found, files.io-failed, shards.provenance-damaged.
    """
    path = directory / PROVENANCE_NAME
    if path.exists() and not path.is_file():
        raise _damaged(path, "not a regular file", "a zstd-compressed file of JSON lines")
    with io_refusals(path), path.open("rb") as source:
        for number, line in enumerate(_lines(source, path), start=1):
            yield _parse(line, f"{path}:{number}")


def document_place(directory: Path, document_index: int) -> Row | None:
    """Where one document came from; None when the directory does not say.

    Refuses: shards.provenance-damaged, also when the file ends before that document.
    """
    return document_places(directory, [document_index]).get(document_index)


def document_places(directory: Path, document_indices: Sequence[int]) -> dict[int, Row]:
    """Where some documents came from, in one pass; empty when the directory does not say.

    Refuses: shards.provenance-damaged, also when the file ends before the last of them.
    """
    wanted = set(document_indices)
    found: dict[int, Row] = {}
    if not wanted or not has_provenance(directory):
        return found
    num_documents = 0
    for row in read_provenance(directory):
        if not row.is_document:
            continue
        if num_documents in wanted:
            found[num_documents] = row
            if len(found) == len(wanted):
                return found
        num_documents += 1
    raise _damaged(
        directory / PROVENANCE_NAME,
        f"{num_documents} documents",
        f"one object for each document of the shards, up to number {max(wanted)}",
    )


def _lines(source: IO[bytes], path: Path) -> Iterator[bytes]:
    blocks = iter(lambda: source.read(_READ_BYTES), b"")
    try:
        for lines in split_lines(_bounded(unpack(blocks, "zst"), path)):
            assert not isinstance(lines, OverlongLine), "a bounded line is over the limit of rows"
            yield from lines
    except DamagedStream as err:
        raise _damaged(path, err.found, "a whole zstd-compressed file") from err


def _bounded(blocks: Iterable[bytes], path: Path) -> Iterator[bytes]:
    """The same blocks, while lines end: a few bytes of zstd can stand for gigabytes of one line."""
    unended_bytes = 0
    for block in blocks:
        last_end = block.rfind(b"\n")
        unended_bytes = len(block) - last_end - 1 + (unended_bytes if last_end < 0 else 0)
        if unended_bytes > _LINE_LIMIT_BYTES:
            raise _damaged(path, f"a line of {unended_bytes} bytes or more", "short objects")
        yield block


def _parse(line: bytes, place: str) -> Row:
    if len(line) > _LINE_LIMIT_BYTES:
        raise _damaged(place, f"a line of {len(line)} bytes", "short objects")
    try:
        value: Any = orjson.loads(line)
    except ValueError as err:
        raise _damaged(place, str(err), "one JSON object") from err
    if not isinstance(value, dict):
        raise _damaged(place, type(value).__name__, "a JSON object")
    fields = cast("dict[str, Any]", value)
    for key, content in fields.items():
        if type(content) is not _KEYS.get(key):
            raise _damaged(place, f"{key!r}: {content!r:.60}", ", ".join(_KEYS))
    if "source" not in fields or {"dropped", "quarantined"} <= fields.keys():
        raise _damaged(place, f"the fields {sorted(fields)}", "a source and at most one fate")
    reason = fields.get("dropped", fields.get("quarantined", "none"))
    if not _REASON.fullmatch(reason):
        raise _damaged(place, f"the reason {reason!r:.60}", "a reason in one short word")
    return Row(**fields)


def _damaged(place: Path | str, found: str, expected: str) -> DamagedFile:
    return DamagedFile(
        "shards.provenance-damaged",
        place,
        found=found,
        expected=expected,
        fix="encode the corpus again; without this file the shards remain readable",
    )
