"""The strict reader of the index: one row per tensor, each row believed only once it fits.

A row claims a name, a data type, a shape, an offset and a size. Upstream's readers compare none of
these with each other; here a size that does not follow from type and shape is refused.
"""

import struct
from math import prod

from apr.container import layout
from apr.container.advice import COPY_AGAIN, WRITE_AGAIN
from apr.container.layout import TensorEntry
from apr.errors import DamagedFile

# Three times the tensors of the largest published mixtures of experts; each costs half a
# kilobyte once read.
TENSORS_LIMIT = 1 << 18

_SHORTEST_ROW_BYTES = 20
_OLD_BF16_CODE = 2
_LARGEST_ARRAY_BYTES = 1 << 62


def read_index(rows: bytes, num_tensors: int, *, where: str) -> tuple[dict[str, TensorEntry], int]:
    """The tensors that `rows` describe, in order, and how many bytes their rows take.

    Refuses: container.index-damaged, container.tensor-name, container.tensor-repeated,
    container.index-unsorted, container.dtype-unknown, container.dtype-old-bf16.
    """
    # The shortest possible row bounds the count before anything is made for it.
    most = min(TENSORS_LIMIT, len(rows) // _SHORTEST_ROW_BYTES)
    if num_tensors > most:
        raise _damaged(where, f"{num_tensors} tensors", f"at most {most} in {len(rows)} bytes")
    tensors: dict[str, TensorEntry] = {}
    at, last_name = 0, b""
    for row in range(num_tensors):
        try:
            entry, name, at = _read_row(rows, at, f"{where}, index row {row}")
        except struct.error as err:
            raise _damaged(where, f"row {row} is cut short", f"{num_tensors} whole rows") from err
        if tensors and name <= last_name:
            repeated = name == last_name
            raise DamagedFile(
                "container.tensor-repeated" if repeated else "container.index-unsorted",
                f"{where}, tensor {entry.name!r}",
                found=f"it follows {last_name.decode('utf-8')!r}",
                expected="unique names, sorted by their bytes",
                fix=WRITE_AGAIN,
            )
        tensors[entry.name] = entry
        last_name = name
    return tensors, at


def require_sound(entry: TensorEntry, *, data_offset: int, length: int, where: str) -> None:
    """Refuse a tensor outside the file, a shape no array has, and a size that does not fit it.

    Refuses: container.tensor-out-of-bounds, container.tensor-shape, container.tensor-size.
    """
    at = f"{where}, tensor {entry.name!r}"
    end = data_offset + entry.offset + entry.size_bytes
    if end > length:
        raise DamagedFile(
            "container.tensor-out-of-bounds",
            at,
            found=f"data ends at byte {end}",
            expected=f"at most {length}, the size of the file",
            fix=COPY_AGAIN,
        )
    # A dimension of 0 beside a huge one has no size, and yet no library can make the array.
    widest_bytes = 8 * prod(max(1, size) for size in entry.shape)
    if len(entry.shape) > layout.DIMENSIONS_LIMIT or widest_bytes > _LARGEST_ARRAY_BYTES:
        raise DamagedFile(
            "container.tensor-shape",
            at,
            found=f"{len(entry.shape)} dimensions: {list(entry.shape)!r:.80}",
            expected=f"at most {layout.DIMENSIONS_LIMIT} dimensions that fit an address space",
            fix=COPY_AGAIN,
        )
    expected = layout.DTYPES[entry.dtype].size_bytes(entry.shape)
    if entry.size_bytes != expected:
        raise DamagedFile(
            "container.tensor-size",
            at,
            found=f"{entry.size_bytes} bytes",
            expected=f"{expected}, for {entry.dtype} {list(entry.shape)}",
            fix=COPY_AGAIN,
        )


def _read_row(rows: bytes, at: int, where: str) -> tuple[TensorEntry, bytes, int]:
    (name_bytes,) = struct.unpack_from("<H", rows, at)
    name, code, num_dimensions = struct.unpack_from(f"<{name_bytes}sBB", rows, at + 2)
    at += 2 + name_bytes + 2
    *shape, offset, size_bytes = struct.unpack_from(f"<{num_dimensions}QQQ", rows, at)
    at += 8 * num_dimensions + 16
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError as err:
        raise DamagedFile(
            "container.tensor-name",
            where,
            found=f"{name!r:.80}",
            expected="a name in UTF-8",
            fix=COPY_AGAIN,
        ) from err
    dtype = layout.dtype_of_code(code)
    if dtype is None:
        raise _unknown_dtype(code, f"{where}, tensor {text!r}")
    return TensorEntry(text, dtype.name, tuple(shape), offset, size_bytes), name, at


def _unknown_dtype(code: int, where: str) -> DamagedFile:
    is_old_bf16 = code == _OLD_BF16_CODE
    return DamagedFile(
        "container.dtype-old-bf16" if is_old_bf16 else "container.dtype-unknown",
        where,
        found=f"data type {code}" + (", which meant bf16 before 2026" if is_old_bf16 else ""),
        expected=", ".join(f"{dtype.code} {name}" for name, dtype in layout.DTYPES.items()),
        fix="import the model again with a current apr" if is_old_bf16 else COPY_AGAIN,
    )


def _damaged(where: str, found: str, expected: str) -> DamagedFile:
    return DamagedFile(
        "container.index-damaged", where, found=found, expected=expected, fix=COPY_AGAIN
    )
