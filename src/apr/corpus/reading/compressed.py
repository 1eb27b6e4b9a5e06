"""Compressed bytes unpacked in blocks, whatever they expand to, to the end or to a named fault.

Both libraries end a stream quietly where the file ends. Here a stream has ended only when its own
end mark was read, so that half an upload is not taken for a smaller corpus.
"""

import zlib
from collections.abc import Iterable, Iterator
from typing import Literal, Protocol

import zstandard

Compression = Literal["gz", "zst"]

_BLOCK_BYTES = 1 << 20
# At the format's greatest ratio, 4 bytes to a block of 128 KiB, one piece unpacks to 16 MiB.
_ZST_PIECE_BYTES = 512
_GZIP_ONLY = 16 + zlib.MAX_WBITS


class DamagedStream(Exception):
    """The rest of a compressed file cannot be read: a reason, and what was found."""

    def __init__(self, reason: str, found: str) -> None:
        super().__init__(reason, found)
        self.reason = reason
        self.found = found


def unpack(blocks: Iterable[bytes], compression: Compression | None) -> Iterator[bytes]:
    """The unpacked bytes in blocks of about a megabyte; DamagedStream where they cannot go on.

    Members of a .gz file and frames of a .zst file follow one another, as their own tools
    write and read them.
    """
    if compression is None:
        return iter(blocks)
    pieces = _gunzip(blocks) if compression == "gz" else _unzstd(blocks)
    return _in_blocks(pieces)


class _Frame(Protocol):
    """A decompressor of one member or frame."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


def _gunzip(blocks: Iterable[bytes]) -> Iterator[bytes]:
    frame = None
    has_ended = False
    for block in blocks:
        data = block
        # Tapes and block devices pad a file with zeros, and gzip passes over them.
        while data := data if frame else data.lstrip(b"\0" if has_ended else b""):
            frame = frame or zlib.decompressobj(_GZIP_ONLY)
            try:
                yield frame.decompress(data, _BLOCK_BYTES)
            except zlib.error as err:
                raise DamagedStream("damaged", str(err)) from err
            data = frame.unused_data if frame.eof else frame.unconsumed_tail
            if frame.eof:
                frame, has_ended = None, True
    _require_ended(frame, has_ended)


def _unzstd(blocks: Iterable[bytes]) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor()
    frame = None
    has_ended = False
    for block in blocks:
        view = memoryview(block)
        for start in range(0, len(view), _ZST_PIECE_BYTES):
            data: bytes | memoryview = view[start : start + _ZST_PIECE_BYTES]
            while data:
                frame = frame or decompressor.decompressobj()
                try:
                    yield frame.decompress(data)
                except zstandard.ZstdError as err:
                    raise DamagedStream("damaged", str(err)) from err
                data = frame.unused_data if frame.eof else b""
                if frame.eof:
                    frame, has_ended = None, True
    _require_ended(frame, has_ended)


def _require_ended(frame: _Frame | None, has_ended: bool) -> None:
    if frame is not None or not has_ended:
        raise DamagedStream("truncated", "the file ends before the compressed stream does")


def _in_blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    gathered: list[bytes] = []
    num_bytes = 0
    try:
        for piece in pieces:
            gathered.append(piece)
            num_bytes += len(piece)
            if num_bytes >= _BLOCK_BYTES:
                data = b"".join(gathered)
                gathered, num_bytes = [], 0
                for start in range(0, len(data), _BLOCK_BYTES):
                    yield data[start : start + _BLOCK_BYTES]
    except DamagedStream:
        # Whole lines before the fault are as good as any.
        yield b"".join(gathered)
        raise
    yield b"".join(gathered)
