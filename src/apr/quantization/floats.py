"""What the formats share: rounding, half-precision scales, and what they refuse to take.

A piece is a flat float32 array. Values that are not finite have no scale, so a caller looks for
them first; a piece that holds one all the same is a bug of the caller.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

FLOAT32_ROUNDING = 2.0**-24
"""Largest relative error of rounding to float32."""
SMALLEST_FLOAT32 = 2.0**-149


def round_half_away(values: Floats) -> Floats:
    """Each value rounded to the nearest integer, halves away from zero.

    Adding a half and truncating would not do: 0.49999997 + 0.5 is 1 in float32. Cutting off the
    whole part and doubling the rest are both exact.
    """
    whole = np.trunc(values)
    rest = values - whole
    rest += rest
    np.trunc(rest, out=rest)
    whole += rest
    return whole


def largest_magnitudes(blocks: Floats) -> Floats:
    """Largest magnitude of every block, as a column.

    Shapes: [blocks, elements] to [blocks, 1]. Raises ValueError where a value is not finite.
    """
    largest = np.maximum(blocks.max(axis=1, keepdims=True), -blocks.min(axis=1, keepdims=True))
    require_finite(largest)
    # Of zeros the largest may be -0.
    return np.abs(largest)


def require_finite(values: Floats) -> None:
    """Raise ValueError where a value is NaN or infinite."""
    if not np.isfinite(values).all():
        raise ValueError("values to quantise must be finite")


def require_whole_blocks(size: int, block: int) -> None:
    """Raise ValueError if a piece is cut inside a block."""
    if size % block:
        raise ValueError(f"a piece of {size} is not a multiple of the block, {block}")


def to_float16(scales: Floats) -> NDArray[np.float16]:
    """Scales rounded to the nearest half. Raises OverflowError where that is infinite."""
    with np.errstate(over="ignore"):
        return _require_no_overflow(scales.astype("<f2"))


def to_float16_at_least(scales: Floats) -> NDArray[np.float16]:
    """Scales rounded up to a half. Raises OverflowError where that is infinite."""
    with np.errstate(over="ignore"):
        halves = scales.astype("<f2")
        above = np.nextafter(halves, np.float16(np.inf))
    return _require_no_overflow(np.where(halves.astype(np.float32) < scales, above, halves))


def _require_no_overflow(halves: NDArray[Any]) -> NDArray[np.float16]:
    if np.isinf(halves).any():
        raise OverflowError("a block's scale is beyond half precision, whose largest is 65504")
    return halves


def reciprocals(values: Floats) -> Floats:
    """1 / value, and 0 where that is infinite."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.float32(1) / values
    inverse[np.isinf(inverse)] = 0
    return inverse
