"""documents.jsonl.zst while it is written: what became of each row, in the order of the input."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import orjson
import zstandard

from apr.corpus.document import Document
from apr.corpus.reading.account import LeftOut


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
        """A row that is a document."""
        self._write(document.source, document.row)

    def left_out(self, row: LeftOut) -> None:
        """A row that is none, or a file that was not opened."""
        kind = "quarantined" if row.is_quarantined else "dropped"
        self._write(row.source, row.row, {kind: row.reason})

    def _write(self, source: str, row: int | None, fate: dict[str, str] | None = None) -> None:
        place = {"source": source} if row is None else {"source": source, "row": row}
        self._rows.write(orjson.dumps(place | (fate or {}), option=orjson.OPT_APPEND_NEWLINE))
