"""The ids of one shard file, memory-mapped, as long as they are those that were opened.

What lies beyond the new end of a mapped file that was cut off kills the process that reads it, and
what was written over is read as if it had always been there. So a file that was written to since
it was opened is hashed again before any more of it is used.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apr.errors import DamagedFile
from apr.files import io_refusals, sha256_file
from apr.shards.layout import TOKEN_DTYPE


class _Stamp(NamedTuple):
    """What a file system says of a file, of which something changes when it is written to."""

    inode: int
    size_bytes: int
    modified_ns: int


class MappedShard:
    """The ids of one shard file, whose sha256 is known to its manifest, or to nobody yet.

    Refuses: shards.file-missing, shards.size, files.io-failed.
    """

    def __init__(self, path: Path, *, size_bytes: int, sha256: str | None) -> None:
        self._path = str(path)
        self._size_bytes = size_bytes
        self._sha256 = sha256
        self._stamp = self._require_size(require_file(path))
        with io_refusals(path):
            self._ids: NDArray[np.uint32] = np.memmap(path, dtype=TOKEN_DTYPE, mode="r")

    def __len__(self) -> int:
        return len(self._ids)

    def read(self, start: int, stop: int) -> NDArray[np.uint32]:
        """The ids at these positions of the shard, as a view.

        Refuses: shards.size, shards.hash-mismatch, files.io-failed, where the file was written to
        since it was opened and is another one now.
        """
        self._require_unchanged()
        return self._ids[start:stop]

    def _require_unchanged(self) -> None:
        try:
            found = _stamp(self._path)
        except OSError:
            return  # What was mapped stays readable when its name is gone.
        if found == self._stamp or found.inode != self._stamp.inode:
            return
        path = Path(self._path)
        stamp = self._require_size(path)
        sha256 = sha256_file(path)
        if sha256 != self._sha256:
            expected = "the file as it was opened" if self._sha256 is None else self._sha256
            raise damaged("shards.hash-mismatch", path, f"sha256 {sha256}", f"sha256 {expected}")
        self._stamp = stamp

    def _require_size(self, path: Path) -> _Stamp:
        with io_refusals(path):
            stamp = _stamp(str(path))
        if stamp.size_bytes != self._size_bytes:
            found, expected = f"{stamp.size_bytes} bytes", f"{self._size_bytes} bytes"
            raise damaged("shards.size", path, found, expected)
        return stamp


def require_file(path: Path) -> Path:
    """The path of a regular file.

    Refuses: shards.file-missing.
    """
    if path.is_file():
        return path
    raise damaged(
        "shards.file-missing",
        path,
        "something that is no regular file" if path.exists() else "nothing",
        "the file that the manifest names",
    )


def damaged(id: str, path: Path, found: str, expected: str) -> DamagedFile:
    """The refusal of a shard that is not what its manifest says."""
    return DamagedFile(
        id,
        path,
        found=found,
        expected=expected,
        fix="copy the whole directory again, or encode the corpus again",
    )


def _stamp(path: str) -> _Stamp:
    found = os.stat(path)
    return _Stamp(found.st_ino, found.st_size, found.st_mtime_ns)
