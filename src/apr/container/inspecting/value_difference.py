"""How far the values of two tensors are apart, piece by piece.

Numbers of the same type are equal when their bits are: so a NaN equals itself and no other, and the
two zeros differ by 0. A NaN or an infinity against anything else is no distance at all, and counts
apart. Quantised tensors are compared by the values that their blocks stand for.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apr.container.layout import DTYPES
from apr.container.reader import Container
from apr.quantization.formats import dequantizer

_PIECE_ELEMENTS = 1 << 20
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
    num_compared: int
    num_different: int
    """With other bits; between two types, with other values."""
    max_abs: float
    """Largest distance between two finite values."""
    max_relative: float
    """Largest distance as a share of the larger of the two values."""
    at: list[int] | None
    """Where the largest distance is."""
    num_not_comparable: int
    """NaN or infinite on one side, and something else on the other."""

    def exceeds(self, tolerance: float | None) -> bool:
        """Whether it is more than was allowed; None allows nothing."""
        if tolerance is None:
            return self.num_different > 0
        return self.num_not_comparable > 0 or self.max_abs > tolerance


def differences(
    a: Container, b: Container, name: str
) -> Iterator[tuple[int, ValueDifference | None]]:
    """Compare one tensor; yields the bytes of A that were read so far, and at the end the result.

    The last result is what differs, or has `num_different` 0.

    Refuses: container.truncated, files.io-failed.
    """
    dtypes = a.tensors[name].dtype, b.tensors[name].dtype
    if any(DTYPES[dtype].is_quantized for dtype in dtypes):
        yield from _spelled_values_differ(a, b, name)
    else:
        yield from _values_differ(a, b, name)


def _spelled_values_differ(
    a: Container, b: Container, name: str
) -> Iterator[tuple[int, ValueDifference | None]]:
    """Compare what blocks stand for, on one side or on both."""
    tally = _Tally()
    num_read = 0
    for left, right in zip(_spelled(a, name), _spelled(b, name), strict=True):
        tally.add_values(left, right)
        num_read = min(num_read + 4 * len(left), a.tensors[name].size_bytes)
        yield num_read, None
    yield a.tensors[name].size_bytes, tally.result(name, a.tensors[name].shape)


def _spelled(container: Container, name: str) -> Iterator[NDArray[np.float64]]:
    """The values of a tensor in pieces of `_PIECE_ELEMENTS`; only the last is shorter."""
    entry = container.tensors[name]
    dtype = DTYPES[entry.dtype]
    step = _PIECE_ELEMENTS // dtype.block_elements * dtype.block_bytes
    data, decode, left = b"", None, entry.num_elements
    for piece in container.pieces(name, piece_bytes=step):
        data += piece
        if decode is None:
            decode = _decoder(entry.dtype, data[: dtype.prefix_bytes])
            data = data[dtype.prefix_bytes :]
        if len(data) >= step:
            yield decode(data[:step])
            data, left = data[step:], left - _PIECE_ELEMENTS
    if data and decode:
        yield decode(data)[:left]


def _decoder(dtype: str, prefix: bytes) -> Callable[[bytes], NDArray[np.float64]]:
    if not DTYPES[dtype].is_quantized:
        return lambda data: _numbers(data, dtype)
    dequantize = dequantizer(dtype, prefix)
    return lambda data: dequantize(data).astype(np.float64)


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
    yield num_read, tally.result(name, a.tensors[name].shape)


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
            self._add_differing(a, b, where, len(differs))
        else:
            self.add_values(_numbers(left, dtypes[0]), _numbers(right, dtypes[1]))

    def add_values(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
        """Count one piece of values of each side."""
        where = np.flatnonzero(a != b)
        self._add_differing(a[where], b[where], where, len(a))

    def result(self, name: str, shape: tuple[int, ...]) -> ValueDifference:
        """What it came to."""
        at = None if self.at is None else [int(index) for index in np.unravel_index(self.at, shape)]
        return ValueDifference(
            name,
            self.num_compared,
            self.num_different,
            self.max_abs,
            self.max_relative,
            at,
            self.num_not_comparable,
        )

    def _add_differing(
        self, a: NDArray[np.float64], b: NDArray[np.float64], where: NDArray[np.intp], num: int
    ) -> None:
        first = self.num_compared
        self.num_compared += num
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
