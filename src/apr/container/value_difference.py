"""How far the values of two tensors are apart, piece by piece.

Numbers of the same type are equal when their bits are: so a NaN equals itself and no other, and the
two zeros differ by 0. A NaN or an infinity against anything else is no distance at all, and counts
apart. Quantised tensors are compared as bytes, because one scale decides about many values.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apr.container.layout import DTYPES
from apr.container.reader import Container

_PIECE_ELEMENTS = 1 << 20
_PIECE_BYTES = 4 << 20
_STORED = {
    "f32": "<f4",
    "f16": "<f2",
    "bf16": "<u2",
    "f64": "<f8",
    "i32": "<i4",
    "i64": "<i8",
    "i8": "i1",
    "u8": "u1",
}


@dataclass(frozen=True)
class ValueDifference:
    """What differs between two tensors of the same name and shape."""

    name: str
    compared_as: str
    """`values`, or `bytes` for a quantised tensor."""
    num_compared: int
    num_different: int
    """With other bits; between two types, with other values."""
    max_abs: float | None
    """Largest distance between two finite values; None where bytes were compared."""
    max_relative: float | None
    """Largest distance as a share of the larger of the two values."""
    at: list[int] | None
    """Where the largest distance is."""
    num_not_comparable: int
    """NaN or infinite on one side, and something else on the other."""

    def exceeds(self, tolerance: float | None) -> bool:
        """Whether it is more than was allowed; None allows nothing."""
        if tolerance is None or self.max_abs is None:
            return self.num_different > 0
        return self.num_not_comparable > 0 or self.max_abs > tolerance


def can_compare(dtype_a: str, dtype_b: str) -> bool:
    """Whether values of these two types can be held against each other."""
    return dtype_a == dtype_b or not (DTYPES[dtype_a].is_quantized or DTYPES[dtype_b].is_quantized)


def differences(
    a: Container, b: Container, name: str
) -> Iterator[tuple[int, ValueDifference | None]]:
    """Compare one tensor; yields the bytes of A that were read so far, and at the end the result.

    The last result is what differs, or has `num_different` 0.

    Refuses: container.truncated, files.io-failed.
    """
    if DTYPES[a.tensors[name].dtype].is_quantized:
        yield from _bytes_differ(a, b, name)
    else:
        yield from _values_differ(a, b, name)


def _bytes_differ(
    a: Container, b: Container, name: str
) -> Iterator[tuple[int, ValueDifference | None]]:
    num_read = num_different = 0
    for left, right in zip(
        a.pieces(name, piece_bytes=_PIECE_BYTES),
        b.pieces(name, piece_bytes=_PIECE_BYTES),
        strict=True,
    ):
        if left != right:
            ours, theirs = (np.frombuffer(piece, np.uint8) for piece in (left, right))
            num_different += int(np.count_nonzero(ours != theirs))
        num_read += len(left)
        yield num_read, None
    yield (
        num_read,
        ValueDifference(name, "bytes", num_read, num_different, None, None, None, 0),
    )


def _values_differ(
    a: Container, b: Container, name: str
) -> Iterator[tuple[int, ValueDifference | None]]:
    dtypes = a.tensors[name].dtype, b.tensors[name].dtype
    widths = [DTYPES[dtype].block_bytes for dtype in dtypes]
    is_same_type = dtypes[0] == dtypes[1]
    tally = _Tally()
    num_read = 0
    for left, right in zip(
        a.pieces(name, piece_bytes=_PIECE_ELEMENTS * widths[0]),
        b.pieces(name, piece_bytes=_PIECE_ELEMENTS * widths[1]),
        strict=True,
    ):
        if not is_same_type or left != right:
            tally.add(left, right, dtypes)
        else:
            tally.num_compared += len(left) // widths[0]
        num_read += len(left)
        yield num_read, None
    shape = a.tensors[name].shape
    at = None if tally.at is None else [int(index) for index in np.unravel_index(tally.at, shape)]
    yield (
        num_read,
        ValueDifference(
            name,
            "values",
            tally.num_compared,
            tally.num_different,
            tally.max_abs,
            tally.max_relative,
            at,
            tally.num_not_comparable,
        ),
    )


class _Tally:
    """What was seen of two tensors so far."""

    def __init__(self) -> None:
        self.num_compared = 0
        self.num_different = 0
        self.num_not_comparable = 0
        self.max_abs = 0.0
        self.max_relative = 0.0
        self.at: int | None = None

    def add(self, left: bytes, right: bytes, dtypes: tuple[str, str]) -> None:
        """Count one piece of each side."""
        if dtypes[0] == dtypes[1]:
            bits = f"<u{DTYPES[dtypes[0]].block_bytes}"
            differs = np.frombuffer(left, bits) != np.frombuffer(right, bits)
            where = np.flatnonzero(differs)
            a, b = (_numbers(piece, dtypes[0], where) for piece in (left, right))
            first, num_values = self.num_compared, len(differs)
        else:
            a, b = _numbers(left, dtypes[0]), _numbers(right, dtypes[1])
            first, num_values = self.num_compared, len(a)
            where = np.flatnonzero(a != b)
            a, b = a[where], b[where]
        self.num_compared += num_values
        self.num_different += len(where)
        with np.errstate(all="ignore"):
            distance = np.abs(a - b)
            is_number = np.isfinite(distance)
            larger = np.maximum(np.abs(a), np.abs(b))
            # Only the two zeros have nothing to divide by, and they are 0 apart.
            relative = distance / np.where(larger == 0, 1.0, larger)
        self.num_not_comparable += int(np.count_nonzero(~is_number))
        distance, relative, where = distance[is_number], relative[is_number], where[is_number]
        if len(distance):
            worst = int(distance.argmax())
            if self.at is None or distance[worst] > self.max_abs:
                self.max_abs, self.at = float(distance[worst]), first + int(where[worst])
            self.max_relative = max(self.max_relative, float(relative.max()))


def _numbers(
    piece: bytes, dtype: str, where: NDArray[np.intp] | None = None
) -> NDArray[np.float64]:
    stored: NDArray[Any] = np.frombuffer(piece, _STORED[dtype])
    if where is not None:
        stored = stored[where]
    if dtype == "bf16":
        # bf16 is the upper half of f32.
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(all="ignore"):
        return stored.astype(np.float64)
