"""Counting zeros in a tensor as its bytes go by: single values, and whole rows.

A zero of either sign is a zero; in a quantised tensor it is a value that its block spells as zero.
Rows are those of the first dimension, as an embedding has one for each token.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from apr.container.layout import DTYPES, TensorEntry
from apr.quantization.formats import dequantizer, prefix_bytes

# The sign is the highest bit of every float.
_VALUE_BITS = {
    "f32": ("<u4", 0x7FFF_FFFF),
    "f16": ("<u2", 0x7FFF),
    "bf16": ("<u2", 0x7FFF),
    "f64": ("<u8", 0x7FFF_FFFF_FFFF_FFFF),
    "i32": ("<u4", 0xFFFF_FFFF),
    "i64": ("<u8", 0xFFFF_FFFF_FFFF_FFFF),
    "i8": ("u1", 0xFF),
    "u8": ("u1", 0xFF),
}


class ZeroCount:
    """The zeros of one tensor."""

    def __init__(self, entry: TensorEntry, *, by_row: bool = False) -> None:
        self.num_values = 0
        self.num_zeros = 0
        self.num_rows = 0
        self.num_zero_rows = 0
        self._entry = entry
        self._dequantize: Callable[[bytes], NDArray[np.float32]] | None = None
        num_rows = entry.shape[0] if by_row and entry.shape else 0
        self._row_values = entry.num_elements // num_rows if num_rows else 0
        self._rest = np.empty(0, np.bool_)

    def add(self, chunk: bytes) -> None:
        """Count the next bytes, whole values or blocks of them."""
        left = self._entry.num_elements - self.num_values
        # The last block of a format may hold more elements than the tensor has.
        is_value = self._is_value(chunk)[:left]
        self.num_values += len(is_value)
        self.num_zeros += len(is_value) - int(np.count_nonzero(is_value))
        if self._row_values:
            self._add_rows(np.concatenate((self._rest, is_value)))

    def _is_value(self, chunk: bytes) -> NDArray[np.bool_]:
        if not DTYPES[self._entry.dtype].is_quantized:
            bits, mask = _VALUE_BITS[self._entry.dtype]
            return (np.frombuffer(chunk, bits) & mask) != 0
        if self._dequantize is None:
            prefix = prefix_bytes(self._entry.dtype)
            self._dequantize = dequantizer(self._entry.dtype, chunk[:prefix])
            chunk = chunk[prefix:]
        return self._dequantize(chunk) != 0

    def _add_rows(self, is_value: NDArray[np.bool_]) -> None:
        whole = len(is_value) // self._row_values * self._row_values
        self._rest = is_value[whole:]
        rows = is_value[:whole].reshape(-1, self._row_values)
        self.num_rows += len(rows)
        self.num_zero_rows += int(np.count_nonzero(~rows.any(axis=1)))
