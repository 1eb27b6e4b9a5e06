"""documents.jsonl.zst while it is written: what became of each row, in the order of the input."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import orjson
import zstandard

from apr.corpus.document import Document
from apr.corpus.reading.account import LeftOut

# As long as a path may be.
_ORIGIN_LIMIT_CHARACTERS = 4096


class Fates:
    """One line for every row that was read."""

    def __init__(self, rows: IO[bytes]) -> None:
        self._rows = rows

    @classmethod
    @contextmanager
    def written(cls, path: Path) -> Generator["Fates"]:
        """Write a packed file.

        Writes: `path`.
        """
        packer = zstandard.ZstdCompressor(level=1, write_checksum=True)
        with path.open("wb") as file, packer.stream_writer(file, closefd=False) as rows:
            yield cls(rows)

    def kept(self, document: Document) -> None:
        """A row that is a document; its first extra field may name where it was before."""
        origin = document.extras[0] if document.extras else None
        is_known = type(origin) is str and 0 < len(origin) <= _ORIGIN_LIMIT_CHARACTERS
        self._write(document.source, document.row, {"origin": origin} if is_known else None)

    def left_out(self, row: LeftOut) -> None:
        """A row that is none, or a file that was not opened."""
        kind = "quarantined" if row.is_quarantined else "dropped"
        self._write(row.source, row.row, {kind: row.reason})

    def _write(self, source: str, row: int | None, more: dict[str, object] | None) -> None:
        place: dict[str, object] = (
            {"source": source} if row is None else {"source": source, "row": row}
        )
        self._rows.write(orjson.dumps(place | (more or {}), option=orjson.OPT_APPEND_NEWLINE))
