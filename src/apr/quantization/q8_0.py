"""Q8_0 of GGML: 32 elements share a half-precision scale, and each is a signed byte.

    0   d, f16: the largest magnitude / 127
    2   32 int8: value / d by the scale before it became a half, rounded half away from zero

Source: gguf-py's quants.py, class Q8_0, which it equals byte for byte.
"""

import numpy as np

from apr.quantization.floats import (
    FLOAT32_ROUNDING,
    SMALLEST_FLOAT32,
    Floats,
    largest_magnitudes,
    reciprocals,
    require_whole_blocks,
    round_half_away,
    to_float16,
)

BLOCK_ELEMENTS = 32
BLOCK_BYTES = 34
_BLOCK = np.dtype([("d", "<f2"), ("q", "i1", 32)])


def quantize(piece: Floats) -> bytes:
    """The blocks of a piece, whose length is a multiple of 32.

    Raises ValueError for values that are not finite, OverflowError if a scale is no half.
    """
    require_whole_blocks(piece.size, BLOCK_ELEMENTS)
    elements = piece.reshape(-1, BLOCK_ELEMENTS)
    scales = _scales(elements)
    blocks = np.empty(len(elements), _BLOCK)
    blocks["d"] = to_float16(scales)[:, 0]
    # Times the reciprocal, because dividing rounds otherwise than the reference. Where the
    # reciprocal overflows, d is 0 anyway.
    blocks["q"] = round_half_away(elements * reciprocals(scales)).astype(np.int8)
    return blocks.tobytes()


def dequantize(data: bytes | memoryview) -> Floats:
    """The values of whole blocks. A scale that is not finite gives values that are not."""
    require_whole_blocks(len(data), BLOCK_BYTES)
    blocks = np.frombuffer(data, _BLOCK)
    values = blocks["q"].astype(np.float32)
    with np.errstate(invalid="ignore"):
        values *= blocks["d"].astype(np.float32)[:, None]
    return values.reshape(-1)


def error_bound(piece: Floats) -> Floats:
    """How far each value may be from its original: half a scale, and what the scale lost.

    A byte is at most 127, and so many times the difference between the exact scale and its half
    is what storing a half costs.
    """
    require_whole_blocks(piece.size, BLOCK_ELEMENTS)
    scales = _scales(piece.reshape(-1, BLOCK_ELEMENTS))
    lost = np.abs(to_float16(scales).astype(np.float32) - scales)
    # Scale, reciprocal and two products are rounded once each.
    rounding = 4 * 128 * (FLOAT32_ROUNDING * scales + SMALLEST_FLOAT32)
    bounds = np.float32(0.5) * scales + 127 * lost + rounding
    return np.repeat(bounds[:, 0], BLOCK_ELEMENTS).astype(np.float32)


def _scales(elements: Floats) -> Floats:
    return largest_magnitudes(elements) / np.float32(127)
