"""Write ids and document boundaries as numbered shards.

A shard ends with the document that brings it to `shard_tokens`, and a new one begins only when
another document arrives, so that none is empty.
"""

import hashlib
from pathlib import Path
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

from apr.errors import Refusal, UsageRefusal
from apr.files import sha256_bytes
from apr.shards.layout import DOCUMENT_HASH_BYTES, TOKEN_DTYPE, index_bytes, index_name, shard_name
from apr.shards.manifest import ShardFile

# Five digits in the name keep the order of names the order of shards.
_MAX_SHARDS = 100_000
_CHUNK_TOKENS = 1 << 20


class ShardWriter:
    """Appends runs of documents to a directory; `close` returns what was written."""

    def __init__(self, directory: Path, *, shard_tokens: int) -> None:
        if shard_tokens < 1:
            raise shard_tokens_refused(shard_tokens, "at least 1")
        self.num_documents = 0
        self.num_tokens = 0
        self._directory = directory
        self._shard_tokens = shard_tokens
        self._shards: list[ShardFile] = []
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self._shard_size = 0
        self._ends: list[NDArray[np.int64]] = []
        self._hashes: list[bytes] = []

    def append(self, token_ids: NDArray[np.uint32], ends: NDArray[np.int64], hashes: bytes) -> None:
        """Add documents: their ids in one run, where each ends in it, their hashes joined.

        Refuses: shards.shard-tokens.
        """
        first, start = 0, 0
        while first < len(ends):
            # The first document that fills the shard is its last.
            wanted = start + self._shard_tokens - self._shard_size
            last = min(int(np.searchsorted(ends, wanted)), len(ends) - 1)
            stop = int(ends[last])
            self._ends.append(ends[first : last + 1] - start + self._shard_size)
            self._hashes.append(
                hashes[first * DOCUMENT_HASH_BYTES : (last + 1) * DOCUMENT_HASH_BYTES]
            )
            self._write(token_ids[start:stop])
            if self._shard_size >= self._shard_tokens:
                self._close_shard()
            first, start = last + 1, stop

    def close(self) -> list[ShardFile]:
        """Finish the last shard."""
        if self._file is not None:
            self._close_shard()
        return self._shards

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_failure: object) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, token_ids: NDArray[np.uint32]) -> None:
        if self._file is None:
            if len(self._shards) == _MAX_SHARDS:
                raise shard_tokens_refused(self._shard_tokens, f"enough for {_MAX_SHARDS} shards")
            self._file = (self._directory / shard_name(len(self._shards))).open("wb")
            self._digest = hashlib.sha256()
        for at in range(0, len(token_ids), _CHUNK_TOKENS):
            data = token_ids[at : at + _CHUNK_TOKENS].astype(TOKEN_DTYPE, copy=False).tobytes()
            self._file.write(data)
            self._digest.update(data)
        self._shard_size += len(token_ids)
        self.num_tokens += len(token_ids)

    def _close_shard(self) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None
        file = shard_name(len(self._shards))
        ends = np.concatenate(self._ends)
        index = index_bytes(ends, b"".join(self._hashes))
        (self._directory / index_name(file)).write_bytes(index)
        self._shards.append(
            ShardFile(
                file=file,
                num_tokens=self._shard_size,
                num_documents=len(ends),
                size_bytes=self._shard_size * TOKEN_DTYPE.itemsize,
                sha256=self._digest.hexdigest(),
                index_sha256=sha256_bytes(index),
            )
        )
        self.num_documents += len(ends)
        self._shard_size, self._ends, self._hashes = 0, [], []


def shard_tokens_refused(found: int, expected: str) -> Refusal:
    """The refusal of a shard size that cannot be."""
    return UsageRefusal(
        "shards.shard-tokens",
        "--shard-tokens",
        found=found,
        expected=expected,
        fix="leave it out for the usual 10 million",
    )
