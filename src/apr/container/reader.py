"""Reading a container: opened with every claim checked, its tensors seen in place.

Opening reads header, metadata and index and proves them against the length of the file; no
tensor is touched. `verify` then reads every byte. Tensors are views into a memory map, so nothing
is copied, whatever the size of the file.
"""

import mmap
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from apr.container.advice import COPY_AGAIN
from apr.container.integrity import Integrity, recorded_sha256, require_intact
from apr.container.layout import TensorEntry
from apr.container.named_keys import Metadata
from apr.container.scan import Scan, scan
from apr.container.sections import Sections, read_sections
from apr.errors import DamagedFile, PathNotFound, Refusal
from apr.files import io_refusals, require_exists
from apr.progress import Report, silent

# numpy has no bf16, and a quantised tensor's bytes are not its values: both come as stored.
_ARRAY_DTYPES = {
    "f32": "<f4",
    "f16": "<f2",
    "bf16": "<u2",
    "f64": "<f8",
    "i32": "<i4",
    "i64": "<i8",
    "i8": "i1",
    "u8": "u1",
}


class Container:
    """An `.apr` file whose header, metadata, index and extents hold; a context manager."""

    def __init__(self, path: Path, source: IO[bytes], data: mmap.mmap | bytes) -> None:
        self.path = path
        self.size_bytes = len(data)
        self.sections: Sections = read_sections(data, where=str(path))
        self.metadata: Metadata = self.sections.metadata
        self.tensors: dict[str, TensorEntry] = self.sections.tensors
        self._source = source
        self._data = data

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file and check everything but the values of its tensors.

        Refuses: files.not-found, files.io-failed, container.not-a-file, and what
        `sections.read_sections` refuses.
        """
        require_exists(path, "an .apr file")
        # A named pipe would block on opening, for ever.
        if not path.is_file():
            raise PathNotFound(
                "container.not-a-file",
                path,
                found="a directory" if path.is_dir() else "something that is no regular file",
                expected="an .apr file",
                fix="name the file itself",
            )
        with io_refusals(path):
            source = path.open("rb")
        try:
            return cls.from_file(source, path=path)
        except BaseException:
            source.close()
            raise

    @classmethod
    def from_file(cls, source: IO[bytes], *, path: Path) -> Self:
        """Open a container through a file that is open already; `path` is only its name.

        Refuses: as `open`.
        """
        with io_refusals(path):
            is_empty = source.seek(0, 2) == 0
            # An empty file cannot be mapped.
            data = b"" if is_empty else mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
        return cls(path, source, data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; arrays that were taken from it stay readable."""
        self._source.close()
        self._data = b""

    def raw(self, name: str) -> memoryview:
        """The stored bytes of a tensor, in place and read-only.

        Refuses: container.tensor-missing.
        """
        start, size_bytes = self._place(name)
        return memoryview(self._data)[start : start + size_bytes]

    def pieces(self, name: str, *, piece_bytes: int) -> Iterator[bytes]:
        """The stored bytes of a tensor one after another, read and not mapped.

        Memory holds one piece, and a disk that fails is an error.

        Refuses: container.tensor-missing, container.truncated, files.io-failed.
        """
        at, left = self._place(name)
        while left:
            with io_refusals(self.path):
                piece = os.pread(self._source.fileno(), min(piece_bytes, left), at)
            if len(piece) < min(piece_bytes, left):
                raise DamagedFile(
                    "container.truncated",
                    self.path,
                    found=f"the file ends at byte {at + len(piece)}",
                    expected="the length it had when it was opened",
                    fix=COPY_AGAIN,
                )
            yield piece
            at, left = at + len(piece), left - len(piece)

    def _place(self, name: str) -> tuple[int, int]:
        """Where a tensor's bytes begin in the file, and how many there are."""
        entry = self.tensors.get(name)
        if entry is None:
            raise Refusal(
                "container.tensor-missing",
                self.path,
                found=f"no tensor {name!r}",
                expected=f"one of the {len(self.tensors)} tensors in the file",
                fix="list them: apr inspect --tensors",
                upstream_id="FALSIFY-APR-PRETRAIN-INIT-007",
            )
        if self._source.closed:
            raise ValueError("the container is closed")
        return self.sections.header.data_offset + entry.offset, entry.size_bytes

    def array(self, name: str) -> NDArray[Any]:
        """A tensor in place and read-only; bf16 comes as uint16, quantised types as raw uint8.

        Refuses: container.tensor-missing.
        """
        data = self.raw(name)
        entry = self.tensors[name]
        dtype = _ARRAY_DTYPES.get(entry.dtype)
        if dtype is None:
            return np.frombuffer(data, dtype=np.uint8)
        return np.frombuffer(data, dtype=dtype).reshape(entry.shape)

    def scan(
        self,
        *,
        hashed: Collection[str] = (),
        with_values: bool = False,
        with_file_sha256: bool = False,
        watchers: Mapping[str, Callable[[bytes], None]] | None = None,
        progress: Report = silent,
    ) -> Scan:
        """Read every byte once and say what is there, without judging it.

        `watchers` are shown the bytes of the tensors they are named for.

        Refuses: container.truncated, files.io-failed.
        """
        return scan(
            self._source,
            self.sections,
            where=str(self.path),
            hashed=hashed,
            with_values=with_values,
            with_file_sha256=with_file_sha256,
            watchers=watchers or {},
            progress=progress,
        )

    def verify(self, *, progress: Report = silent) -> Integrity:
        """Prove every byte: footer, padding, and each tensor's sha256 where one is recorded.

        Refuses: container.tensor-sha256-mismatch, container.tensor-sha256-incomplete,
        container.padding-not-zero, container.footer-missing, container.footer-mismatch, and as
        `scan`.
        """
        recorded = recorded_sha256(self.sections, where=str(self.path))
        seen = self.scan(hashed=recorded, progress=progress)
        return require_intact(seen, self.sections, recorded, where=str(self.path))
