"""The strict reader of a GGUF file: fields and tensor infos, each believed only once it fits.

Every count, length and offset is somebody's claim. Each is compared with the length of the file
before it is used, nothing is allocated from an unchecked count, and a tensor is known to lie
inside the file, aligned and apart from the others, before a byte of it is read.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

from apr.convert.gguf import layout
from apr.convert.gguf.cursor import COPY_AGAIN, Cursor
from apr.convert.gguf.layout import SCALAR_FORMATS, TensorType, ValueType
from apr.convert.gguf.values import Field, Value
from apr.convert.source import CHUNK_BYTES
from apr.errors import DamagedFile, PathNotFound
from apr.files import io_refusals, require_exists

# Of all arrays together: five times the largest published vocabularies and their merges.
STRINGS_LIMIT = 1 << 22
FIELDS_LIMIT = 1 << 16
TENSORS_LIMIT = 1 << 18
KEY_LIMIT_BYTES = 65_535

_SHORTEST_FIELD_BYTES = 8 + 1 + 4 + 1
_SHORTEST_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8
_SHORTEST_ELEMENT_BYTES = {ValueType.STRING: 8, ValueType.ARRAY: 12}
_NESTING_LIMIT = 3
_ALIGNMENTS = tuple(1 << power for power in range(3, 21))
_LARGEST_TENSOR_BYTES = 1 << 62


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: where it lies and what it is. `shape` is row-major, the reverse of GGUF's."""

    name: str
    type: TensorType
    shape: tuple[int, ...]
    start: int
    """The byte of the file where its data begins."""

    @property
    def size_bytes(self) -> int:
        """Bytes of its data, without the padding to the next tensor."""
        return self.type.size_bytes(self.shape)


@dataclass(frozen=True)
class GgufFile:
    """What a file holds, once every claim in it has been compared with its length."""

    path: Path
    size_bytes: int
    version: int
    alignment: int
    fields: dict[str, Field]
    """By key, in the order of the file."""
    tensors: dict[str, TensorInfo]
    """By name, in the order of the file."""
    stamp: tuple[int, int, int, int]
    """Which file it was and when it was last written; another one is not read on."""

    def chunks(self, name: str) -> Callable[[], Iterator[memoryview]]:
        """What reads a tensor's stored bytes, in pieces of whole blocks, as often as it is called.

        Refuses when called: gguf.file-changed, gguf.truncated, files.not-found, files.io-failed.
        """
        info = self.tensors[name]
        return partial(self._read, info)

    def _read(self, info: TensorInfo) -> Iterator[memoryview]:
        with io_refusals(self.path):
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _stamp(descriptor) != self.stamp:
                raise DamagedFile(
                    "gguf.file-changed",
                    self.path,
                    found="another file, or the file written again",
                    expected="the file that was opened",
                    fix="run the same command again",
                )
            yield from read_tensor(descriptor, info, where=str(self.path))
        finally:
            os.close(descriptor)


def read_gguf(path: Path) -> GgufFile:
    """Open a file and check everything but the values of its tensors.

    Refuses: files.not-found, files.io-failed, gguf.not-a-file, and what `read_front` refuses.
    """
    require_exists(path, "a GGUF file")
    # A named pipe would block on opening, for ever.
    if not path.is_file():
        raise PathNotFound(
            "gguf.not-a-file",
            path,
            found="a directory" if path.is_dir() else "something that is no regular file",
            expected="a GGUF file",
            fix="name the file itself",
        )
    with io_refusals(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_front(descriptor, path=path)
    finally:
        os.close(descriptor)


def read_front(descriptor: int, *, path: Path) -> GgufFile:
    """As `read_gguf`, through a descriptor that is open already; `path` is only its name.

    Refuses: gguf.not-gguf, gguf.big-endian, gguf.version, gguf.truncated, gguf.front-too-large,
    gguf.count, gguf.text-damaged, gguf.bool-damaged, gguf.key, gguf.key-repeated,
    gguf.value-type, gguf.nesting, gguf.alignment, gguf.tensor-name, gguf.tensor-repeated,
    gguf.tensor-shape, gguf.tensor-type-unknown, gguf.tensor-unaligned,
    gguf.tensor-out-of-bounds, gguf.tensors-overlap, files.io-failed.
    """
    where = str(path)
    with io_refusals(path):
        stamp = _stamp(descriptor)
    cursor = Cursor(descriptor, stamp[2], where=where)
    version = _read_version(cursor)
    num_tensors = cursor.u64("the number of tensors")
    num_fields = cursor.u64("the number of fields")
    fields = _read_fields(cursor, num_fields)
    alignment = _alignment(fields, where)
    rows = _read_rows(cursor, num_tensors)
    tensors = _placed(rows, layout.padded(cursor.at, alignment), alignment, stamp[2], where)
    return GgufFile(
        path=path,
        size_bytes=stamp[2],
        version=version,
        alignment=alignment,
        fields=fields,
        tensors=tensors,
        stamp=stamp,
    )


def read_tensor(descriptor: int, info: TensorInfo, *, where: str) -> Iterator[memoryview]:
    """A tensor's stored bytes, in pieces of whole blocks.

    Refuses: gguf.truncated, files.io-failed.
    """
    step = max(1, CHUNK_BYTES // info.type.block_bytes) * info.type.block_bytes
    at, end = info.start, info.start + info.size_bytes
    while at < end:
        with io_refusals(where):
            data = os.pread(descriptor, min(step, end - at), at)
        whole = len(data) // info.type.block_bytes * info.type.block_bytes
        if not whole:
            raise DamagedFile(
                "gguf.truncated",
                f"{where}, tensor {info.name!r}",
                found=f"{at + len(data)} bytes",
                expected=f"at least {end}",
                fix=COPY_AGAIN,
            )
        yield memoryview(data)[:whole]
        at += whole


def _stamp(descriptor: int) -> tuple[int, int, int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _read_version(cursor: Cursor) -> int:
    magic = cursor.take(4, "the magic") if cursor.left_bytes >= 4 else b""
    if magic != layout.MAGIC:
        raise DamagedFile(
            "gguf.not-gguf",
            cursor.where,
            found=f"a file that starts with {magic!r}",
            expected=f"{layout.MAGIC!r}, the start of a GGUF file",
            fix="name a GGUF file; older ggml formats are converted by llama.cpp's scripts",
        )
    version = cursor.u32("the version")
    swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
    if version not in layout.READABLE_VERSIONS and swapped in layout.READABLE_VERSIONS:
        raise DamagedFile(
            "gguf.big-endian",
            cursor.where,
            found=f"a big-endian file of version {swapped}",
            expected="a little-endian one",
            fix="convert it: gguf-convert-endian FILE little",
        )
    if version not in layout.READABLE_VERSIONS:
        raise DamagedFile(
            "gguf.version",
            cursor.where,
            found=f"version {version}",
            expected=" or ".join(map(str, layout.READABLE_VERSIONS)),
            fix="convert the model again with a current llama.cpp",
        )
    return version


def _require_count(cursor: Cursor, count: int, shortest_bytes: int, limit: int, what: str) -> None:
    """Refuse a count that the rest of the file has no room for, before anything is made for it."""
    most = min(limit, cursor.left_bytes // shortest_bytes)
    if count > most:
        raise DamagedFile(
            "gguf.count",
            cursor.where,
            found=f"{count} {what}",
            expected=f"at most {most} in {cursor.left_bytes} bytes",
            fix=COPY_AGAIN,
        )


def _read_fields(cursor: Cursor, count: int) -> dict[str, Field]:
    _require_count(cursor, count, _SHORTEST_FIELD_BYTES, FIELDS_LIMIT, "fields")
    fields: dict[str, Field] = {}
    for number in range(count):
        what = f"field {number}"
        key = cursor.text(what)
        if not key or len(key) > KEY_LIMIT_BYTES or "\0" in key:
            raise DamagedFile(
                "gguf.key",
                f"{cursor.where}, {what}",
                found=f"the key {key!r:.80}",
                expected=f"a key of 1 to {KEY_LIMIT_BYTES} characters",
                fix=COPY_AGAIN,
            )
        what = f"field {key!r:.80}"
        if key in fields:
            raise DamagedFile(
                "gguf.key-repeated",
                f"{cursor.where}, {what}",
                found="the key twice",
                expected="every key once",
                fix="remove one of the two: gguf_new_metadata.py of llama.cpp writes the file anew",
            )
        kind = _read_type(cursor, what)
        if kind == ValueType.ARRAY:
            element, value = _read_array(cursor, what, depth=1)
            fields[key] = Field(key, kind, value, element)
        else:
            fields[key] = Field(key, kind, _read_single(cursor, kind, what))
    return fields


def _read_type(cursor: Cursor, what: str) -> ValueType:
    code = cursor.u32(what)
    try:
        return ValueType(code)
    except ValueError as err:
        raise DamagedFile(
            "gguf.value-type",
            f"{cursor.where}, {what}",
            found=f"value type {code}",
            expected=f"0 to {max(ValueType)}",
            fix=COPY_AGAIN,
        ) from err


def _read_single(cursor: Cursor, kind: ValueType, what: str) -> int | float | bool | str:
    return cursor.text(what) if kind == ValueType.STRING else cursor.scalar(kind, what)


def _read_array(cursor: Cursor, what: str, *, depth: int) -> tuple[ValueType, Value]:
    element = _read_type(cursor, what)
    count = cursor.u64(what)
    if element in SCALAR_FORMATS:
        return element, cursor.numbers(element, count, what)
    left = STRINGS_LIMIT - cursor.num_elements
    _require_count(cursor, count, _SHORTEST_ELEMENT_BYTES[element], left, f"elements of {what}")
    cursor.num_elements += count
    values: list[Any] = []
    if element == ValueType.STRING:
        for _ in range(count):
            values.append(cursor.text(what))
        return element, values
    if depth >= _NESTING_LIMIT:
        raise DamagedFile(
            "gguf.nesting",
            f"{cursor.where}, {what}",
            found=f"arrays nested more than {_NESTING_LIMIT} deep",
            expected="arrays of numbers or strings",
            fix=COPY_AGAIN,
        )
    for _ in range(count):
        values.append(_read_array(cursor, what, depth=depth + 1)[1])
    return element, values


def _alignment(fields: dict[str, Field], where: str) -> int:
    field = fields.get(layout.ALIGNMENT_KEY)
    if field is None:
        return layout.DEFAULT_ALIGNMENT
    value = field.value
    is_count = field.type == ValueType.UINT32
    if is_count and isinstance(value, int) and value in _ALIGNMENTS:
        return value
    raise DamagedFile(
        "gguf.alignment",
        where,
        found=f"{layout.ALIGNMENT_KEY} {value!r:.80}",
        expected=f"a power of two from {_ALIGNMENTS[0]} to {_ALIGNMENTS[-1]}",
        fix=COPY_AGAIN,
    )


def _read_rows(cursor: Cursor, count: int) -> dict[str, tuple[TensorType, tuple[int, ...], int]]:
    _require_count(cursor, count, _SHORTEST_TENSOR_BYTES, TENSORS_LIMIT, "tensors")
    rows: dict[str, tuple[TensorType, tuple[int, ...], int]] = {}
    for number in range(count):
        what = f"tensor info {number}"
        name = cursor.text(what)
        size_bytes = len(name.encode("utf-8"))
        if not 0 < size_bytes <= layout.TENSOR_NAME_LIMIT_BYTES or "\0" in name:
            raise DamagedFile(
                "gguf.tensor-name",
                f"{cursor.where}, {what}",
                found=f"the name {name!r:.80}",
                expected=f"a name of 1 to {layout.TENSOR_NAME_LIMIT_BYTES} bytes",
                fix=COPY_AGAIN,
            )
        what = f"tensor {name!r}"
        if name in rows:
            raise DamagedFile(
                "gguf.tensor-repeated",
                f"{cursor.where}, {what}",
                found="the name twice",
                expected="every tensor once",
                fix="convert the model again from its source",
            )
        rows[name] = _read_row(cursor, what)
    return rows


def _read_row(cursor: Cursor, what: str) -> tuple[TensorType, tuple[int, ...], int]:
    num_dimensions = cursor.u32(what)
    if not 1 <= num_dimensions <= layout.DIMENSIONS_LIMIT:
        found = f"{num_dimensions} dimensions"
        raise _bad_shape(cursor, what, found, f"1 to {layout.DIMENSIONS_LIMIT}")
    shape = tuple(reversed([cursor.u64(what) for _ in range(num_dimensions)]))
    code = cursor.u32(what)
    offset = cursor.u64(what)
    kind = layout.TENSOR_TYPES.get(code)
    if kind is None:
        raise DamagedFile(
            "gguf.tensor-type-unknown",
            f"{cursor.where}, {what}",
            found=f"data type {code}",
            expected="one of " + ", ".join(each.name for each in layout.TENSOR_TYPES.values()),
            fix="convert the model to F16, Q8_0, Q4_K or Q6_K: llama-quantize",
        )
    if not all(shape) or prod(shape) > _LARGEST_TENSOR_BYTES // kind.block_bytes:
        raise _bad_shape(cursor, what, f"shape {list(shape)}", "sizes that fit a file")
    if shape[-1] % kind.block_elements:
        raise _bad_shape(
            cursor,
            what,
            f"rows of {shape[-1]} elements in {kind.name}",
            f"a multiple of {kind.block_elements}",
        )
    return kind, shape, offset


def _bad_shape(cursor: Cursor, what: str, found: str, expected: str) -> DamagedFile:
    return DamagedFile(
        "gguf.tensor-shape",
        f"{cursor.where}, {what}",
        found=found,
        expected=expected,
        fix=COPY_AGAIN,
    )


def _placed(
    rows: dict[str, tuple[TensorType, tuple[int, ...], int]],
    data_start: int,
    alignment: int,
    file_bytes: int,
    where: str,
) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for name, (kind, shape, offset) in rows.items():
        info = TensorInfo(name, kind, shape, data_start + offset)
        at = f"{where}, tensor {name!r}"
        if offset % alignment:
            raise DamagedFile(
                "gguf.tensor-unaligned",
                at,
                found=f"offset {offset}",
                expected=f"a multiple of {alignment}",
                fix=COPY_AGAIN,
            )
        if info.start + info.size_bytes > file_bytes:
            raise DamagedFile(
                "gguf.tensor-out-of-bounds",
                at,
                found=f"data ends at byte {info.start + info.size_bytes}",
                expected=f"at most {file_bytes}, the size of the file",
                fix=COPY_AGAIN,
            )
        tensors[name] = info
    for first, second in pairwise(sorted(tensors.values(), key=lambda info: info.start)):
        if first.start + first.size_bytes > second.start:
            raise DamagedFile(
                "gguf.tensors-overlap",
                f"{where}, tensor {second.name!r}",
                found=f"data begins at byte {second.start}",
                expected=f"{first.start + first.size_bytes} or more, behind {first.name!r}",
                fix=COPY_AGAIN,
            )
    return tensors
