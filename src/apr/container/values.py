"""Counting the values of a tensor that are no finite numbers, without widening them.

A float is NaN or infinite exactly when all its exponent bits are set, which one mask shows for
every width, bf16 included. Of a quantised tensor the scales are floats, and they are what is
looked at.
"""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from apr.container.layout import DTYPES

_EXPONENTS: dict[str, tuple[str, int]] = {
    "f32": ("<u4", 0x7F80_0000),
    "f16": ("<u2", 0x7C00),
    "bf16": ("<u2", 0x7F80),
    "f64": ("<u8", 0x7FF0_0000_0000_0000),
}

# Positions of the f16 scales inside one block.
_SCALES_AT: dict[str, tuple[int, ...]] = {"q4": (0,), "q4_k": (0, 2), "q6_k": (208,)}
_Q8_SCALE_BYTES = 4


def count_non_finite(dtype: str, chunk: bytes | memoryview, *, is_first: bool) -> int:
    """How many floats in whole elements or blocks of a tensor are NaN or infinite.

    `is_first` says that the chunk starts the tensor; integers are always finite.
    """
    if dtype in _EXPONENTS:
        return _count(chunk, *_EXPONENTS[dtype])
    if dtype in _SCALES_AT:
        block = np.dtype(
            {
                "names": [f"at_{at}" for at in _SCALES_AT[dtype]],
                "formats": ["<u2" for _ in _SCALES_AT[dtype]],
                "offsets": list(_SCALES_AT[dtype]),
                "itemsize": DTYPES[dtype].block_bytes,
            }
        )
        blocks = np.frombuffer(chunk, dtype=block)
        mask = _EXPONENTS["f16"][1]
        return sum(_num_with(blocks[name], mask) for name in block.names or ())
    if dtype == "q8" and is_first:
        return _count(chunk[:_Q8_SCALE_BYTES], *_EXPONENTS["f32"])
    return 0


def _count(chunk: bytes | memoryview, bits: DTypeLike, mask: int) -> int:
    return _num_with(np.frombuffer(chunk, dtype=bits), mask)


def _num_with(bits: NDArray[Any], mask: int) -> int:
    return int(np.count_nonzero((bits & mask) == mask))
