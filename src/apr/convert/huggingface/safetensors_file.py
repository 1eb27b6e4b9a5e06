"""The safetensors format, read strictly and in pieces.

    0        length of the header, u64 little-endian
    8        header: a JSON object of tensors, padded with spaces
    8+header the tensors' bytes, tiled without a hole

Every length and offset is somebody's claim and is compared with the length of the file before it
is used. Tensors are read with ordinary reads, never mapped: mapped pages count as memory, and a
file that shrinks under a map kills the process.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, cast

from apr.convert.source import CHUNK_BYTES, SourceTensor
from apr.errors import DamagedFile
from apr.files import io_refusals, parse_json, require_exists

LENGTH_BYTES = 8
HEADER_LIMIT_BYTES = 100_000_000
"""The limit of the reference library."""
METADATA_KEY = "__metadata__"

WIDTHS = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "C64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "U16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
"""Bytes of one element, by the format's name of its type."""

# Known by name, so that the refusal can say what they are.
_NARROW_FLOATS = ("F8_", "F6_", "F4")

# More than ten times the tensors of the largest dense model published.
_TENSORS_LIMIT = 1 << 14
_COMMAS_PER_TENSOR = 8
_DIMENSIONS_LIMIT = 8
_LARGEST_ARRAY_BYTES = 1 << 62
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}

_COPY_AGAIN = "the file is damaged or cut; copy it again and compare sha256"
_WRITE_AGAIN = "write the file again with the safetensors library"


@dataclass(frozen=True)
class Entry:
    """One tensor of a file; `start` and `stop` count from the first byte of the file."""

    name: str
    dtype: str
    """As the format spells it: `F32`, `BF16`, ..."""
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def size_bytes(self) -> int:
        """Stored bytes."""
        return self.stop - self.start


@dataclass(frozen=True)
class SafetensorsFile:
    """A safetensors file whose every claim about itself holds."""

    path: Path
    metadata: Mapping[str, str]
    entries: Mapping[str, Entry]
    """By name, in the order of their bytes."""
    identity: tuple[int, ...]
    """What the operating system says of the file that was checked."""

    @classmethod
    def open(cls, path: Path) -> "SafetensorsFile":
        """Read and check everything but the values of the tensors; the file is closed again.

        Refuses: files.not-found, files.io-failed, safetensors.not-a-file, and as `read_header`.
        """
        require_exists(path, "a .safetensors file")
        # A named pipe would block on opening, for ever.
        if not path.is_file():
            raise DamagedFile(
                "safetensors.not-a-file",
                path,
                found="a directory" if path.is_dir() else "something that is no regular file",
                expected="a .safetensors file",
                fix="name the file itself",
            )
        with io_refusals(path):
            handle = os.open(path, os.O_RDONLY)
            try:
                metadata, entries = read_header(handle, where=str(path))
                return cls(path, metadata, entries, _identity(handle))
            finally:
                os.close(handle)

    def tensor(self, name: str) -> SourceTensor:
        """A tensor as the rest of a conversion sees it: types are spelled as containers do."""
        entry = self.entries[name]
        return SourceTensor(name, entry.dtype.lower(), entry.shape, partial(self._chunks, entry))

    def tensors(self) -> dict[str, SourceTensor]:
        """All tensors by name."""
        return {name: self.tensor(name) for name in self.entries}

    def _chunks(self, entry: Entry) -> Iterator[memoryview]:
        """The bytes of a tensor in pieces.

        Refuses: safetensors.changed, safetensors.truncated, files.not-found, files.io-failed.
        """
        with io_refusals(self.path):
            handle = os.open(self.path, os.O_RDONLY)
            try:
                if _identity(handle) != self.identity:
                    raise DamagedFile(
                        "safetensors.changed",
                        self.path,
                        found="another file, or other contents, than when it was opened",
                        expected="the file that was checked",
                        fix="let nothing write to the file, and start again",
                    )
                for at in range(entry.start, entry.stop, CHUNK_BYTES):
                    size_bytes = min(CHUNK_BYTES, entry.stop - at)
                    yield memoryview(_read(handle, at, size_bytes, where=str(self.path)))
            finally:
                os.close(handle)


def read_header(handle: int, *, where: str) -> tuple[dict[str, str], dict[str, Entry]]:
    """The metadata and the tensors of an open file, once the header has been checked.

    Refuses: safetensors.truncated, safetensors.header-length, safetensors.header-damaged,
    safetensors.too-many-tensors, safetensors.metadata, safetensors.entry, safetensors.dtype,
    safetensors.shape, safetensors.offsets, safetensors.size, safetensors.not-tiled.
    """
    length = os.fstat(handle).st_size
    if length < LENGTH_BYTES:
        raise _truncated(where, length, LENGTH_BYTES, "the length of the header")
    header_bytes = int.from_bytes(_read(handle, 0, LENGTH_BYTES, where=where), "little")
    if header_bytes > HEADER_LIMIT_BYTES:
        raise DamagedFile(
            "safetensors.header-length",
            where,
            found=f"a header of {header_bytes} bytes",
            expected=f"at most {HEADER_LIMIT_BYTES}; this may be no safetensors file at all",
            fix=_COPY_AGAIN,
        )
    data_start = LENGTH_BYTES + header_bytes
    if data_start > length:
        raise _truncated(where, length, data_start, "the header")
    rows = _parse(_read(handle, LENGTH_BYTES, header_bytes, where=where), where)
    metadata = _metadata(rows.pop(METADATA_KEY, {}), where)
    if len(rows) > _TENSORS_LIMIT:
        raise _too_many(where, f"{len(rows)} tensors")
    entries = [_entry(name, row, data_start, length, where) for name, row in rows.items()]
    entries.sort(key=lambda entry: (entry.start, entry.stop))
    _require_tiled(entries, data_start, length, where)
    return metadata, {entry.name: entry for entry in entries}


def _identity(handle: int) -> tuple[int, ...]:
    status = os.fstat(handle)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _read(handle: int, at: int, size_bytes: int, *, where: str) -> bytes:
    """Exactly these bytes of the file."""
    data = os.pread(handle, size_bytes, at)
    while len(data) < size_bytes:
        more = os.pread(handle, size_bytes - len(data), at + len(data))
        if not more:
            raise _truncated(where, at + len(data), at + size_bytes, "what was there before")
        data += more
    return data


def _parse(header: bytes, where: str) -> dict[str, Any]:
    # Counted before anything is made of the text, which would take some fifty times its size.
    if (commas := header.count(b",")) > _COMMAS_PER_TENSOR * _TENSORS_LIMIT:
        raise _too_many(where, f"a header with {commas} commas")
    try:
        # The format demands the brace at the very start, and spaces at the end.
        if not header.startswith(b"{") or not header.rstrip(b" ").endswith(b"}"):
            raise ValueError(f"it starts with {header[:8]!r} and ends with {header[-8:]!r}")
        return cast(dict[str, Any], parse_json(header))
    except ValueError as err:
        raise DamagedFile(
            "safetensors.header-damaged",
            where,
            found=str(err),
            expected="a header that is one strict JSON object",
            fix=_COPY_AGAIN,
        ) from err


def _metadata(value: Any, where: str) -> dict[str, str]:
    if isinstance(value, dict):
        pairs = cast(dict[str, Any], value)
        if all(isinstance(text, str) for text in pairs.values()):
            return pairs
    raise DamagedFile(
        "safetensors.metadata",
        where,
        found=f"{METADATA_KEY} {value!r:.80}",
        expected="an object of strings",
        fix=_WRITE_AGAIN,
    )


def _entry(name: str, row: Any, data_start: int, length: int, where: str) -> Entry:
    at = f"{where}, tensor {name!r:.80}"
    if not name or not isinstance(row, dict) or set(cast(dict[str, Any], row)) != _ENTRY_KEYS:
        raise DamagedFile(
            "safetensors.entry",
            at,
            found=f"{row!r:.80}" if name else "a tensor without a name",
            expected="a name, and an object of dtype, shape and data_offsets",
            fix=_WRITE_AGAIN,
        )
    fields = cast(dict[str, Any], row)
    dtype = _dtype(fields["dtype"], at)
    shape = _shape(fields["shape"], at)
    start, stop = _offsets(fields["data_offsets"], length - data_start, at)
    expected = prod(shape) * WIDTHS[dtype]
    if stop - start != expected:
        raise DamagedFile(
            "safetensors.size",
            at,
            found=f"{stop - start} bytes",
            expected=f"{expected}, for {dtype} {list(shape)}",
            fix=_COPY_AGAIN,
        )
    return Entry(name, dtype, shape, data_start + start, data_start + stop)


def _dtype(value: Any, at: str) -> str:
    if isinstance(value, str) and value in WIDTHS:
        return value
    is_narrow = isinstance(value, str) and value.startswith(_NARROW_FLOATS)
    raise DamagedFile(
        "safetensors.dtype",
        at,
        found=f"{value!r:.40}" + (", floats of less than 16 bits" if is_narrow else ""),
        expected="one of " + ", ".join(WIDTHS),
        fix="save the model again in bfloat16 or float32" if is_narrow else _COPY_AGAIN,
    )


def _shape(value: Any, at: str) -> tuple[int, ...]:
    if isinstance(value, list):
        sizes = cast(list[int], value)
        if (
            len(sizes) <= _DIMENSIONS_LIMIT
            and all(map(_is_count, sizes))
            # A dimension of 0 beside a huge one has no size, and yet no library can make the array.
            and 8 * prod(max(1, size) for size in sizes) <= _LARGEST_ARRAY_BYTES
        ):
            return tuple(sizes)
    raise DamagedFile(
        "safetensors.shape",
        at,
        found=f"{value!r:.80}",
        expected=f"at most {_DIMENSIONS_LIMIT} sizes that fit an address space",
        fix=_COPY_AGAIN,
    )


def _offsets(value: Any, data_bytes: int, at: str) -> tuple[int, int]:
    offsets = cast(list[Any], value) if isinstance(value, list) else []
    if (
        len(offsets) != 2
        or not all(map(_is_count, offsets))
        or not offsets[0] <= offsets[1] <= data_bytes
    ):
        raise DamagedFile(
            "safetensors.offsets",
            at,
            found=f"data_offsets {value!r:.80}",
            expected=f"start and end within the {data_bytes} bytes of data",
            fix=_COPY_AGAIN,
        )
    return offsets[0], offsets[1]


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _require_tiled(entries: list[Entry], data_start: int, length: int, where: str) -> None:
    at = data_start
    for entry in entries:
        if entry.start != at:
            what = "bytes of no tensor" if entry.start > at else "bytes of two tensors"
            raise _not_tiled(
                f"{where}, tensor {entry.name!r:.80}",
                f"{abs(entry.start - at)} {what} before it",
            )
        at = entry.stop
    if at != length:
        raise _not_tiled(where, f"{length - at} bytes after the last tensor")


def _not_tiled(where: str, found: str) -> DamagedFile:
    return DamagedFile(
        "safetensors.not-tiled",
        where,
        found=found,
        expected="tensors that follow one another up to the end of the file",
        fix=_COPY_AGAIN,
    )


def _too_many(where: str, found: str) -> DamagedFile:
    return DamagedFile(
        "safetensors.too-many-tensors",
        where,
        found=found,
        expected=f"at most {_TENSORS_LIMIT} tensors; no dense model has as many",
        fix="get the file from a source you trust",
    )


def _truncated(where: str, length: int, needed: int, what: str) -> DamagedFile:
    return DamagedFile(
        "safetensors.truncated",
        where,
        found=f"{length} bytes",
        expected=f"at least {needed}, for {what}",
        fix=_COPY_AGAIN,
    )
