"""The bytes of one stretch of one file, hashed as they are read."""

import hashlib
from collections.abc import Iterator
from os import SEEK_END

from apr.corpus.reading.locations import open_location
from apr.errors import DamagedFile
from apr.files import io_refusals

BLOCK_BYTES = 1 << 20


class RawBlocks:
    """Yields the bytes from `start` to `stop` once, a megabyte at a time.

    A file that ends earlier, or goes on after its planned end, is another file than was planned.

    Refuses: corpus.input-changed, files.not-found, files.io-failed.
    """

    def __init__(self, location: str, *, start: int, stop: int, size_bytes: int) -> None:
        self._location = location
        self._start = start
        self._stop = stop
        self._size_bytes = size_bytes
        self._hash = hashlib.sha256()
        self._blocks = self._read()

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks

    @property
    def sha256(self) -> str:
        """Of the whole stretch; what nobody asked for yet is read now."""
        for _ in self._blocks:
            pass
        return self._hash.hexdigest()

    def _read(self) -> Iterator[bytes]:
        position, planned = self._start, f"{self._size_bytes} bytes"
        with io_refusals(self._location), open_location(self._location) as opened:
            if self._stop - self._start < self._size_bytes:
                if opened.seek(0, SEEK_END) != self._size_bytes:
                    raise input_changed(self._location, f"{opened.tell()} bytes", planned)
                opened.seek(position)
            while position < self._stop:
                block = opened.read(min(BLOCK_BYTES, self._stop - position))
                if not block:
                    raise input_changed(self._location, f"it ends after {position} bytes", planned)
                position += len(block)
                self._hash.update(block)
                yield block
            if position == self._size_bytes and opened.read(1):
                raise input_changed(self._location, f"it goes on after {position} bytes", planned)


def input_changed(location: str, found: str, planned: str) -> DamagedFile:
    """The refusal of a file that is another than was planned."""
    return DamagedFile(
        "corpus.input-changed",
        location,
        found=found,
        expected=f"{planned}, as when the work was planned",
        fix="let the file be written to its end, then plan the work again",
    )
