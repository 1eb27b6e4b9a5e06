"""Write ids and document boundaries as numbered shards.

A shard is closed only when the next document arrives, so that none is empty and a separator
that comes between two documents still lands in the first one's shard.
"""

import hashlib
from pathlib import Path
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

from apr.errors import Refusal, UsageRefusal
from apr.files import sha256_bytes
from apr.shards.layout import TOKEN_DTYPE, index_bytes, index_name, shard_name
from apr.shards.manifest import EosPolicy, ShardFile

# Five digits in the name keep the order of names the order of shards.
_MAX_SHARDS = 100_000


class ShardWriter:
    """Appends documents to a directory; `close` returns what was written."""

    def __init__(
        self,
        directory: Path,
        *,
        shard_tokens: int,
        eos_policy: EosPolicy,
        eos_token_id: int | None,
    ) -> None:
        if shard_tokens < 1:
            raise _shard_tokens(shard_tokens, "at least 1")
        self.num_documents = 0
        self.num_separators = 0
        self._directory = directory
        self._shard_tokens = shard_tokens
        self._eos_policy = eos_policy
        self._separator = np.array([eos_token_id or 0], dtype=TOKEN_DTYPE)
        self._shards: list[ShardFile] = []
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self._ends: list[int] = []
        self._hashes: list[bytes] = []

    def append(self, token_ids: NDArray[np.uint32], document_hash: bytes) -> None:
        """Add one document, with its separator where the policy wants one.

        Refuses: shards.shard-tokens.
        """
        if self._eos_policy == "between" and self._ends:
            self._write_separator()
        if self._ends and self._ends[-1] >= self._shard_tokens:
            self._close_shard()
        self._ends.append(self._ends[-1] if self._ends else 0)
        self._hashes.append(document_hash)
        self.num_documents += 1
        self._write(token_ids)
        if self._eos_policy == "after":
            self._write_separator()

    def close(self) -> list[ShardFile]:
        """Finish the last shard."""
        if self._ends:
            self._close_shard()
        return self._shards

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_failure: object) -> None:
        if self._file is not None:
            self._file.close()

    def _write_separator(self) -> None:
        self._write(self._separator)
        self.num_separators += 1

    def _write(self, token_ids: NDArray[np.uint32]) -> None:
        if self._file is None:
            if len(self._shards) == _MAX_SHARDS:
                raise _shard_tokens(self._shard_tokens, f"enough for {_MAX_SHARDS} shards")
            self._file = (self._directory / shard_name(len(self._shards))).open("wb")
            self._digest = hashlib.sha256()
        data = token_ids.astype(TOKEN_DTYPE, copy=False).tobytes()
        self._file.write(data)
        self._digest.update(data)
        self._ends[-1] += len(token_ids)

    def _close_shard(self) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None
        file = shard_name(len(self._shards))
        index = index_bytes(self._ends, self._hashes)
        (self._directory / index_name(file)).write_bytes(index)
        self._shards.append(
            ShardFile(
                file=file,
                num_tokens=self._ends[-1],
                num_documents=len(self._ends),
                size_bytes=self._ends[-1] * TOKEN_DTYPE.itemsize,
                sha256=self._digest.hexdigest(),
                index_sha256=sha256_bytes(index),
            )
        )
        self._ends, self._hashes = [], []


def _shard_tokens(found: int, expected: str) -> Refusal:
    return UsageRefusal(
        "shards.shard-tokens",
        "--shard-tokens",
        found=found,
        expected=expected,
        fix="leave it out for the usual 10 million",
    )
