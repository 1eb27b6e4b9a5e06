"""Counting zeros in a tensor as its bytes go by: single values, and whole rows.

A zero of either sign is a zero. Rows are those of the first dimension, as an embedding has one for
each token.
"""

import numpy as np

from apr.container.layout import DTYPES, TensorEntry

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
    """The zeros of one tensor that is not quantised."""

    def __init__(self, entry: TensorEntry, *, by_row: bool = False) -> None:
        self.num_values = 0
        self.num_zeros = 0
        self.num_rows = 0
        self.num_zero_rows = 0
        self._bits, self._mask = _VALUE_BITS[entry.dtype]
        num_rows = entry.shape[0] if by_row and entry.shape else 0
        self._row_values = entry.num_elements // num_rows if num_rows else 0
        self._row_bytes = self._row_values * DTYPES[entry.dtype].block_bytes
        self._rest = b""

    @staticmethod
    def can_count(entry: TensorEntry) -> bool:
        """Whether the values can be told from the bytes."""
        return entry.dtype in _VALUE_BITS

    def add(self, chunk: bytes) -> None:
        """Count the next bytes, whole values of them."""
        is_value = np.frombuffer(chunk, self._bits) & self._mask
        self.num_values += len(is_value)
        self.num_zeros += len(is_value) - int(np.count_nonzero(is_value))
        if self._row_bytes:
            self._add_rows(self._rest + chunk)

    def _add_rows(self, data: bytes) -> None:
        whole_bytes = len(data) // self._row_bytes * self._row_bytes
        self._rest = data[whole_bytes:]
        values = np.frombuffer(data, self._bits, count=whole_bytes // (self._itemsize or 1))
        rows = (values & self._mask).reshape(-1, self._row_values)
        self.num_rows += len(rows)
        self.num_zero_rows += int(np.count_nonzero(~rows.any(axis=1)))

    @property
    def _itemsize(self) -> int:
        return np.dtype(self._bits).itemsize
