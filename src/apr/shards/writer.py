"""Cut documents into numbered shards, and write one.

A shard ends with the document that brings it to `shard_tokens`, and a new one begins only when
another document arrives, so that none is empty. Which documents a shard has is known before any
is written, so that several can be written at once.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apr.errors import Refusal, UsageRefusal
from apr.files import sha256_bytes
from apr.shards.layout import DOCUMENT_HASH_BYTES, TOKEN_DTYPE, index_bytes, index_name, shard_name
from apr.shards.manifest import ShardFile

# Five digits in the name keep the order of names the order of shards.
_MAX_SHARDS = 100_000
# More than any file system holds, and far from where 64 bits overflow.
_MAX_SHARD_TOKENS = 10**15
# The allocator gives larger pieces back to the system each time, which clears them again.
_CHUNK_BYTES = 1 << 20


@dataclass
class ShardContent:
    """The documents of one shard, and where their ids lie."""

    runs: list[tuple[Path, int, int]] = field(default_factory=list[tuple[Path, int, int]])
    """Files of ids, each with the first token and the one after the last."""
    num_tokens: int = 0
    ends: list[NDArray[np.int64]] = field(default_factory=list[NDArray[np.int64]])
    hashes: list[bytes] = field(default_factory=list[bytes])


class ShardCutter:
    """Cuts documents, as they come, into shards."""

    def __init__(self, *, shard_tokens: int) -> None:
        require_shard_tokens(shard_tokens)
        self.shards: list[ShardContent] = []
        self.num_documents = 0
        self.num_tokens = 0
        self._shard_tokens = shard_tokens

    def append(self, path: Path, ends: NDArray[np.int64], hashes: bytes) -> None:
        """Add the documents of a file of ids: where each ends in it, their hashes joined.

        Refuses: shards.shard-tokens.
        """
        first, start = 0, 0
        while first < len(ends):
            shard = self._open_shard()
            # The first document that fills the shard is its last.
            wanted = start + self._shard_tokens - shard.num_tokens
            last = min(int(np.searchsorted(ends, wanted)), len(ends) - 1)
            stop = int(ends[last])
            shard.runs.append((path, start, stop))
            shard.ends.append(ends[first : last + 1] - start + shard.num_tokens)
            shard.hashes.append(
                hashes[first * DOCUMENT_HASH_BYTES : (last + 1) * DOCUMENT_HASH_BYTES]
            )
            shard.num_tokens += stop - start
            self.num_tokens += stop - start
            self.num_documents += last + 1 - first
            first, start = last + 1, stop

    def _open_shard(self) -> ShardContent:
        if not self.shards or self.shards[-1].num_tokens >= self._shard_tokens:
            if len(self.shards) == _MAX_SHARDS:
                raise _shard_tokens_refused(self._shard_tokens, f"enough for {_MAX_SHARDS} shards")
            self.shards.append(ShardContent())
        return self.shards[-1]


def write_shard(
    directory: Path, number: int, shard: ShardContent, *, listener: Callable[[int], None]
) -> ShardFile:
    """Write one shard, and tell the listener of the bytes that are done.

    Writes: shard-NNNNN.bin, shard-NNNNN.idx.
    """
    file = shard_name(number)
    digest = hashlib.sha256()
    with (directory / file).open("wb", buffering=0) as target:
        for path, start, stop in shard.runs:
            left_bytes = (stop - start) * TOKEN_DTYPE.itemsize
            with path.open("rb", buffering=0) as source:
                source.seek(start * TOKEN_DTYPE.itemsize)
                while left_bytes and (data := source.read(min(left_bytes, _CHUNK_BYTES))):
                    _write_all(target, data)
                    digest.update(data)
                    left_bytes -= len(data)
                    listener(len(data))
            assert not left_bytes, "a part is as long as its receipt says"
    ends = np.concatenate(shard.ends)
    index = index_bytes(ends, b"".join(shard.hashes))
    (directory / index_name(file)).write_bytes(index)
    return ShardFile(
        file=file,
        num_tokens=shard.num_tokens,
        num_documents=len(ends),
        size_bytes=shard.num_tokens * TOKEN_DTYPE.itemsize,
        sha256=digest.hexdigest(),
        index_sha256=sha256_bytes(index),
    )


def _write_all(target: FileIO, data: bytes) -> None:
    """A raw file may take less than it is given, on a disk that is nearly full for one."""
    view = memoryview(data)
    while view:
        view = view[target.write(view) :]


def require_shard_tokens(shard_tokens: int) -> None:
    """Refuse a shard size that no file could have.

    Refuses: shards.shard-tokens.
    """
    if not 1 <= shard_tokens <= _MAX_SHARD_TOKENS:
        raise _shard_tokens_refused(shard_tokens, f"1 to {_MAX_SHARD_TOKENS:,}")


def _shard_tokens_refused(found: int, expected: str) -> Refusal:
    """The refusal of a shard size that cannot be."""
    return UsageRefusal(
        "shards.shard-tokens",
        "--shard-tokens",
        found=found,
        expected=expected,
        fix="leave it out for the usual 10 million",
    )
