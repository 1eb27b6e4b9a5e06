"""AprQ4: 32 elements of the flattened tensor share a half-precision scale.

    0   scale, f16: the largest magnitude / 7, or 1 where all are zero
    2   16 bytes; byte j holds element 2j in its low nibble and 2j + 1 in its high one

A nibble is q + 8, with q = value / scale by the scale *before* it became a half, rounded half
away from zero. Blocks ignore the ends of rows, and the last one is filled up with zeros. GGML's
Q4_0 also has 18 bytes per 32 elements and means others: it pairs j with j + 16.
"""

import numpy as np

from apr.quantization.floats import (
    FLOAT32_ROUNDING,
    SMALLEST_FLOAT32,
    Floats,
    largest_magnitudes,
    require_whole_blocks,
    round_half_away,
    to_float16,
)

BLOCK_ELEMENTS = 32
BLOCK_BYTES = 18
_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
_SMALLEST_NORMAL = np.finfo(np.float16).smallest_normal


def quantize(piece: Floats) -> bytes:
    """The blocks of a piece; only the last piece of a tensor may end inside a block.

    Raises ValueError for values that are not finite, OverflowError if a scale is no half.
    """
    elements = _in_blocks(piece)
    scales = _scales(elements)
    # Magnitudes below 7 * 2**-150 give scale 0, which reads as zeros whatever the nibbles are.
    divisors: Floats = np.where(scales > 0, scales, np.float32(1))
    rounded = round_half_away(elements / divisors)
    np.clip(rounded, -8, 7, out=rounded)
    rounded += 8
    nibbles = rounded.astype(np.uint8)
    blocks = np.empty(len(elements), _BLOCK)
    blocks["scale"] = to_float16(scales)[:, 0]
    blocks["nibbles"] = nibbles[:, 0::2] | nibbles[:, 1::2] << 4
    return blocks.tobytes()


def dequantize(data: bytes | memoryview) -> Floats:
    """The values of whole blocks, those that fill up the last one included.

    A scale that is NaN, infinite or below the smallest normal half counts as 0, as it does for
    the Rust reader.
    """
    require_whole_blocks(len(data), BLOCK_BYTES)
    blocks = np.frombuffer(data, _BLOCK)
    values = np.empty((len(blocks), 16, 2), np.float32)
    values[:, :, 0] = blocks["nibbles"] & 0x0F
    values[:, :, 1] = blocks["nibbles"] >> 4
    values -= 8
    values *= _as_read(blocks["scale"])[:, None, None]
    return values.reshape(-1)


def error_bound(piece: Floats) -> Floats:
    """How far each value may be from its original: half a scale, and what the scale lost.

    Seven times the difference between the exact scale and the one that is read comes from
    storing a half, and makes a block of tiny values, whose scale reads as 0, its own bound.
    """
    elements = _in_blocks(piece)
    scales = _scales(elements)
    lost = np.abs(_as_read(to_float16(scales)) - scales)
    # Scale, quotient and product are rounded once each, and a quotient is at most 8.
    rounding = 3 * 8 * (FLOAT32_ROUNDING * scales + SMALLEST_FLOAT32)
    bounds = np.float32(0.5) * scales + 7 * lost + rounding
    return np.repeat(bounds[:, 0], BLOCK_ELEMENTS)[: piece.size].astype(np.float32)


def _in_blocks(piece: Floats) -> Floats:
    missing = -piece.size % BLOCK_ELEMENTS
    whole = np.concatenate([piece, np.zeros(missing, np.float32)]) if missing else piece
    return whole.reshape(-1, BLOCK_ELEMENTS)


def _scales(elements: Floats) -> Floats:
    largest = largest_magnitudes(elements)
    return np.where(largest > 0, largest / np.float32(7), np.float32(1))


def _as_read(halves: np.ndarray[tuple[int, ...], np.dtype[np.float16]]) -> Floats:
    scales = halves.astype(np.float32)
    usable = np.isfinite(scales) & (np.abs(scales) >= _SMALLEST_NORMAL)
    return np.where(usable, scales, np.float32(0))
