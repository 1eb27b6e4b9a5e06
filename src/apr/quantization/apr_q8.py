"""AprQ8: one float32 scale for the whole tensor, then a signed byte per element.

    0   scale, f32
    4   one int8 per element: value / scale, rounded half away from zero, within +-127

The scale needs the largest magnitude of the tensor, so a tensor that is handled in pieces is read
twice. Read back, a value is q * scale.
"""

import numpy as np

from apr.quantization.floats import (
    FLOAT32_ROUNDING,
    SMALLEST_FLOAT32,
    Floats,
    require_finite,
    round_half_away,
)

BLOCK_ELEMENTS = 1
BLOCK_BYTES = 1
PREFIX_BYTES = 4
_LARGEST = np.float32(127)


def scale_of(max_abs: float) -> float:
    """The scale of a tensor whose largest magnitude is `max_abs`: a 127th of it, in float32.

    A tensor of zeros has scale 1. Magnitudes so small that the quotient would be 0 get the
    smallest float32 instead, which keeps them exactly. Raises ValueError if `max_abs` is not
    finite, OverflowError if 127 times the scale rounds beyond float32.
    """
    largest = np.float32(max_abs)
    require_finite(np.atleast_1d(largest))
    if largest == 0:
        return 1.0
    scale = max(largest / _LARGEST, np.float32(SMALLEST_FLOAT32))
    with np.errstate(over="ignore"):
        if np.isinf(scale * _LARGEST):
            raise OverflowError(f"{max_abs} is too close to the end of float32 for q8")
    return float(scale)


def encode_prefix(scale: float) -> bytes:
    """The bytes before the first element."""
    return np.array(scale, "<f4").tobytes()


def decode_prefix(prefix: bytes | memoryview) -> float:
    """The scale that a tensor's first four bytes hold, whatever it is."""
    return float(np.frombuffer(prefix, "<f4", count=1)[0])


def quantize(piece: Floats, scale: float) -> bytes:
    """One byte per element of a piece of any length."""
    require_finite(piece)
    rounded = round_half_away(piece / np.float32(scale))
    return np.clip(rounded, -_LARGEST, _LARGEST, out=rounded).astype(np.int8).tobytes()


def dequantize(data: bytes | memoryview, scale: float) -> Floats:
    """The values of some elements, without the prefix.

    A scale that is not finite gives values that are not finite.
    """
    values = np.frombuffer(data, np.int8).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        values *= np.float32(scale)
    return values


def error_bound(piece: Floats, scale: float) -> Floats:
    """How far each value may be from its original: half a scale, and rounding.

    The scale, the quotient and the product are rounded once each, and a quotient is at most 127.
    """
    half = 0.5 * scale + 3 * 128 * (FLOAT32_ROUNDING * scale + SMALLEST_FLOAT32)
    return np.full(piece.shape, half, np.float32)
