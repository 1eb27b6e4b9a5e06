"""One shard on disk: what its two files hold, byte by byte.

`shard-00000.bin` is token ids, little-endian u32, nothing else, so that any tool can map it.
`shard-00000.idx` says what a headerless file cannot:

    offset  size  content
    0       8     magic "APRSHIDX"
    8       4     version, u32 = 1
    12      4     bytes per token, u32 = 4
    16      8     number of tokens, u64
    24      8     number of documents N, u64
    32      8 N   end of each document in tokens, u64, ascending; the last is the token count
    32+8N   16 N  BLAKE2b-128 of each document's UTF-8 text

The width stands in the file because u32 ids read as pairs of u16 look plausible.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apr.corpus.document import document_hash
from apr.corpus.identity import DOCUMENT_HASH_BYTES
from apr.errors import DamagedFile
from apr.files import io_refusals

__all__ = [
    "DOCUMENT_HASH_BYTES",
    "INDEX_MAGIC",
    "INDEX_VERSION",
    "TOKEN_DTYPE",
    "Index",
    "document_hash",
    "index_bytes",
    "index_name",
    "index_size_bytes",
    "read_index",
    "shard_name",
]

TOKEN_DTYPE = np.dtype("<u4")
INDEX_MAGIC = b"APRSHIDX"
INDEX_VERSION = 1

_HEADER = struct.Struct("<8sIIQQ")
_END_DTYPE = np.dtype("<u8")


@dataclass(frozen=True)
class Index:
    """Where the documents of one shard end, and what text each was made from."""

    num_tokens: int
    document_ends: NDArray[np.uint64]
    document_hashes: NDArray[np.uint8]


def shard_name(shard_index: int) -> str:
    """The name of the file that holds a shard's ids."""
    return f"shard-{shard_index:05d}.bin"


def index_name(shard_file: str) -> str:
    """The name of the index beside a shard."""
    return shard_file.removesuffix(".bin") + ".idx"


def index_size_bytes(num_documents: int) -> int:
    """The exact size of an index."""
    return _HEADER.size + num_documents * (_END_DTYPE.itemsize + DOCUMENT_HASH_BYTES)


def index_bytes(document_ends: Sequence[int] | NDArray[np.int64], document_hashes: bytes) -> bytes:
    """The bytes of an index; the last document ends where the tokens end."""
    num_documents = len(document_ends)
    num_tokens = int(document_ends[-1]) if num_documents else 0
    header = _HEADER.pack(
        INDEX_MAGIC, INDEX_VERSION, TOKEN_DTYPE.itemsize, num_tokens, num_documents
    )
    return header + np.asarray(document_ends, _END_DTYPE).tobytes() + document_hashes


def read_index(path: Path, *, num_tokens: int, num_documents: int) -> Index:
    """Read an index that must hold exactly these counts.

    Nothing is allocated from a count in the file: the size is compared first.

    Refuses: shards.index-damaged.
    """
    expected_bytes = index_size_bytes(num_documents)
    with io_refusals(path):
        size_bytes = path.stat().st_size
        data = path.read_bytes() if size_bytes == expected_bytes else b""
    if size_bytes != expected_bytes:
        raise _damaged(path, f"{size_bytes} bytes", f"{expected_bytes} bytes")
    found = _HEADER.unpack_from(data)
    header = (INDEX_MAGIC, INDEX_VERSION, TOKEN_DTYPE.itemsize, num_tokens, num_documents)
    names = ("magic", "version", "bytes per token", "tokens", "documents")
    for name, value, wanted in zip(names, found, header, strict=True):
        if value != wanted:
            raise _damaged(path, f"{name} {value!r}", f"{name} {wanted!r}")
    ends = np.frombuffer(data, _END_DTYPE, num_documents, offset=_HEADER.size)
    starts = np.concatenate([np.zeros(1, _END_DTYPE), ends[:-1]])
    if ends[-1] != num_tokens or not bool(np.all(starts < ends)):
        raise _damaged(path, "document ends out of order", f"ascending ends up to {num_tokens}")
    hashes = np.frombuffer(data, np.uint8, offset=_HEADER.size + ends.nbytes)
    return Index(num_tokens, ends, hashes.reshape(num_documents, DOCUMENT_HASH_BYTES))


def _damaged(path: Path, found: str, expected: str) -> DamagedFile:
    return DamagedFile(
        "shards.index-damaged",
        path,
        found=found,
        expected=expected,
        fix="encode the corpus again: apr tokenize encode-corpus",
    )
