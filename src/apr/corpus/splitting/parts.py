"""Documents written as packed JSON lines, in parts that one task encodes at a time."""

from pathlib import Path
from types import TracebackType
from typing import IO

import orjson
import zstandard

from apr.corpus.reading.documents import Document
from apr.files import io_refusals

PART_NAMES = r"part-\d{5,}\.jsonl\.zst"

_PART_BYTES = 64 << 20
_LEVEL = 3


class PartWriter:
    """Appends documents to part-00000.jsonl.zst, part-00001.jsonl.zst and so on in a directory.

    A row holds `content`, `source` (file and row it came from) and `group`. The same documents
    give the same bytes.

    Writes: `directory`, which must not exist.
    """

    def __init__(self, directory: Path, *, part_bytes: int = _PART_BYTES) -> None:
        self._directory = directory
        self._part_bytes = part_bytes
        self._num_parts = 0
        self._num_bytes = 0
        self._file: IO[bytes] | None = None
        self._packer = _packer()

    def __enter__(self) -> "PartWriter":
        self._directory.mkdir()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def append(self, document: Document) -> None:
        """Write one document; a part ends with the one that fills it with unpacked bytes."""
        row = {"content": document.text, "source": document.place, "group": document.group}
        line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
        with io_refusals(self._directory):
            file = self._file or self._open()
            file.write(self._packer.compress(line))
            self._num_bytes += len(line)
            if self._num_bytes >= self._part_bytes:
                self._close()

    def _open(self) -> IO[bytes]:
        self._file = (self._directory / f"part-{self._num_parts:05d}.jsonl.zst").open("xb")
        self._packer = _packer()
        self._num_parts += 1
        self._num_bytes = 0
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            with self._file as file:
                self._file = None
                file.write(self._packer.flush())


def _packer() -> "zstandard.ZstdCompressionObj":
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()
