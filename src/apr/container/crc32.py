"""CRC-32 of bytes that go by, computed beside whatever else is done with them."""

import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

# Handing a smaller piece to a thread takes longer than computing it.
_WORTH_A_THREAD_BYTES = 64 << 10


class RunningCrc32:
    """The CRC-32 of all pieces so far; a context manager.

    A large piece is computed by a thread while the caller hashes or writes it, so a piece must not
    change before the next one is added.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._crc = 0
        self._pending: Future[int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def add(self, piece: bytes | memoryview) -> None:
        """Take in the next piece."""
        crc = self.value()
        if len(piece) < _WORTH_A_THREAD_BYTES:
            self._crc = zlib.crc32(piece, crc)
        else:
            self._pending = self._pool.submit(zlib.crc32, piece, crc)

    def value(self) -> int:
        """The CRC-32 of everything that was added."""
        if self._pending is not None:
            self._crc = self._pending.result()
            self._pending = None
        return self._crc
