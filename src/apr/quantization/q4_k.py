"""Q4_K of GGML: super-blocks of 256 elements in eight sub-blocks of 32, four bits an element.

    0    d, f16
    2    dmin, f16
    4    12 bytes: a scale and a minimum of six bits for each sub-block
    16   128 bytes; in the 32 of pair c the low nibbles are sub-block 2c, the high ones 2c + 1

    value = d * scale * nibble - dmin * minimum

The layout equals gguf-py's exactly. Which scales are best is each writer's own choice, see
`q4_k_fit`. On normal random numbers the relative rms error is 0.0715, and 0.0713 by llama.cpp's
own quantiser; weighted as both fit, 0.0586 each.
"""

import numpy as np
from numpy.typing import NDArray

from apr.quantization.floats import (
    Floats,
    reciprocals,
    require_finite,
    require_whole_blocks,
    to_float16_at_least,
)
from apr.quantization.q4_k_fit import LARGEST, REACH, STRETCH, extremes, fit

BLOCK_ELEMENTS = 256
BLOCK_BYTES = 144
_BLOCK = np.dtype(
    [("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", (3, 4)), ("nibbles", "u1", (4, 32))]
)
_LARGEST_SCALE = np.float32(63)

# Half a MiB of float32: what a fit works on stays in the cache of a core.
_CHUNK_ELEMENTS = 1 << 17

# A range of 2**26 / 15 / 63 is beyond half precision even after the closest fit, and squares of
# smaller ones are within float32.
_LARGEST_MAGNITUDE = 2.0**26


def quantize(piece: Floats) -> bytes:
    """The super-blocks of a piece, whose length is a multiple of 256.

    Raises ValueError for values that are not finite, OverflowError if a scale is no half.
    """
    require_whole_blocks(piece.size, BLOCK_ELEMENTS)
    blocks = np.empty(piece.size // BLOCK_ELEMENTS, _BLOCK)
    step = _CHUNK_ELEMENTS // BLOCK_ELEMENTS
    for start in range(0, len(blocks), step):
        stop = start + step
        _quantize_chunk(piece[start * BLOCK_ELEMENTS : stop * BLOCK_ELEMENTS], blocks[start:stop])
    return blocks.tobytes()


def dequantize(data: bytes | memoryview) -> Floats:
    """The values of whole super-blocks. Scales that are not finite give values that are not."""
    require_whole_blocks(len(data), BLOCK_BYTES)
    blocks = np.frombuffer(data, _BLOCK)
    scales, minima = _unpack_scales(blocks["scales"])
    values = np.empty((len(blocks), 4, 2, 32), np.float32)
    values[:, :, 0] = blocks["nibbles"] & 0x0F
    values[:, :, 1] = blocks["nibbles"] >> 4
    by_sub_block = values.reshape(-1, 8, 32)
    with np.errstate(invalid="ignore"):
        by_sub_block *= (blocks["d"].astype(np.float32)[:, None] * scales)[:, :, None]
        by_sub_block -= (blocks["dmin"].astype(np.float32)[:, None] * minima)[:, :, None]
    return values.reshape(-1)


def error_bound(piece: Floats) -> Floats:
    """How far each value may be from its original: half a step, more near the ends of a range.

    A scale and a minimum are stored as multiples of d and dmin, which are at least a 63rd of the
    largest ones, so each is off by at most half of those. What is representable therefore starts
    at most REACH steps and half a dmin above the lowest element, and ends REACH steps, half a
    dmin and 15 half d below the highest; elements outside are off by that much more.
    """
    require_whole_blocks(piece.size, BLOCK_ELEMENTS)
    elements = piece.reshape(-1, 8, 32)
    low = np.minimum(elements.min(axis=2, keepdims=True), np.float32(0))
    high = elements.max(axis=2, keepdims=True)
    require_finite(high - low)
    step = (high - low) / LARGEST
    half_d = _half_unit(np.float32(STRETCH) * step)
    half_dmin = _half_unit(np.float32(REACH) * step - low)
    lowest = low + np.float32(REACH) * step + half_dmin
    highest = high - np.float32(REACH) * step - half_dmin - LARGEST * half_d
    outside = np.maximum(np.maximum(lowest - elements, elements - highest), np.float32(0))
    # A dozen float32 roundings, of at most some three times the largest magnitude.
    rounding = np.float32(2.0**-18) * np.maximum(high, -low).max(axis=1, keepdims=True)
    half_step = (np.float32(STRETCH) * step + half_d) / 2
    return (half_step + outside + rounding).reshape(-1)


def _half_unit(largest: Floats) -> Floats:
    # Rounding up to a half adds 2**-10 of it, or 2**-24 where halves are subnormal.
    of_block = largest.max(axis=1, keepdims=True) / _LARGEST_SCALE
    return of_block * np.float32(0.5 + 2.0**-11) + np.float32(2.0**-25)


def _quantize_chunk(piece: Floats, blocks: NDArray[np.void]) -> None:
    elements_32N = np.ascontiguousarray(piece.reshape(-1, 32).T)
    low_N, high_N = extremes(elements_32N)
    _require_magnitudes(low_N, high_N)
    scale_N, minimum_N = fit(elements_32N, low_N, high_N)
    d, scales = _in_six_bits(scale_N.reshape(-1, 8))
    dmin, minima = _in_six_bits(minimum_N.reshape(-1, 8))
    blocks["d"] = d
    blocks["dmin"] = dmin
    blocks["scales"] = _pack_scales(scales.astype(np.uint8), minima.astype(np.uint8))
    nibbles_32N = _nibbles(
        elements_32N,
        (d.astype(np.float32)[:, None] * scales).reshape(-1),
        (dmin.astype(np.float32)[:, None] * minima).reshape(-1),
    )
    pairs = nibbles_32N[:, 0::2] | nibbles_32N[:, 1::2] << 4
    blocks["nibbles"] = pairs.T.reshape(-1, 4, 32)


def _require_magnitudes(low_N: Floats, high_N: Floats) -> None:
    largest_N = np.maximum(high_N, -low_N)
    require_finite(largest_N)
    if (largest_N >= _LARGEST_MAGNITUDE).any():
        raise OverflowError("a block's scale is beyond half precision, whose largest is 65504")


def _in_six_bits(values: Floats) -> tuple[NDArray[np.float16], Floats]:
    """Each row's unit and its values in units, 0 to 63. [blocks, 8] to [blocks] and [blocks, 8].

    The unit is rounded up, so that the largest value is never cut off at 63 units.
    """
    unit = to_float16_at_least(values.max(axis=1) / _LARGEST_SCALE)
    divisor = np.where(unit > 0, unit.astype(np.float32), np.float32(1))
    return unit, np.rint(values / divisor[:, None])


def _nibbles(elements_32N: Floats, scale_N: Floats, minimum_N: Floats) -> NDArray[np.uint8]:
    """The best nibbles for scales and minima as they are stored. Writes over the elements."""
    elements_32N += minimum_N
    elements_32N *= reciprocals(scale_N)
    np.rint(elements_32N, out=elements_32N)
    np.clip(elements_32N, np.float32(0), LARGEST, out=elements_32N)
    return elements_32N.astype(np.uint8)


def _pack_scales(scales: NDArray[np.uint8], minima: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Eight scales and eight minima of six bits as 12 bytes. [blocks, 8] twice to [blocks, 3, 4].

    The first four have a byte each, whose upper two bits are those of the last four.
    """
    first_scales = scales[:, :4] | scales[:, 4:] >> 4 << 6
    first_minima = minima[:, :4] | minima[:, 4:] >> 4 << 6
    last_of_both = scales[:, 4:] & 0x0F | minima[:, 4:] << 4
    return np.stack([first_scales, first_minima, last_of_both], axis=1).astype(np.uint8)


def _unpack_scales(packed: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    first_scales, first_minima, last_of_both = packed[:, 0], packed[:, 1], packed[:, 2]
    scales = [first_scales & 0x3F, last_of_both & 0x0F | first_scales >> 6 << 4]
    minima = [first_minima & 0x3F, last_of_both >> 4 | first_minima >> 6 << 4]
    return (
        np.concatenate(scales, axis=1).astype(np.float32),
        np.concatenate(minima, axis=1).astype(np.float32),
    )
