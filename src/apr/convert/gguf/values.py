"""A field of a GGUF file: a key, what type its value has, and the value."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apr.convert.gguf.layout import ValueType

Value = int | float | bool | str | list[Any] | NDArray[Any]
"""An array of strings, or of arrays, is a list; one of numbers a numpy array."""


@dataclass(frozen=True, eq=False)
class Field:
    """One key and its value; `element` is the type of an array's elements."""

    key: str
    type: ValueType
    value: Value
    element: ValueType | None = None

    def equals(self, other: "Field") -> bool:
        """Whether key, types and value are the same."""
        if (self.key, self.type, self.element) != (other.key, other.type, other.element):
            return False
        if isinstance(self.value, np.ndarray) and isinstance(other.value, np.ndarray):
            return self.value.tobytes() == other.value.tobytes()
        if self.type == ValueType.FLOAT32:
            return np.float32(self.value) == np.float32(other.value)  # type: ignore[arg-type]
        return bool(self.value == other.value)


def text(key: str, value: str) -> Field:
    """A string."""
    return Field(key, ValueType.STRING, value)


def uint32(key: str, value: int) -> Field:
    """A count or an id, as nearly all of them are stored."""
    return Field(key, ValueType.UINT32, value)


def float32(key: str, value: float) -> Field:
    """A number; rounded to single precision, as llama.cpp keeps it."""
    return Field(key, ValueType.FLOAT32, float(np.float32(value)))


def boolean(key: str, value: bool) -> Field:
    """A yes or a no."""
    return Field(key, ValueType.BOOL, value)


def texts(key: str, values: Sequence[str]) -> Field:
    """An array of strings."""
    return Field(key, ValueType.ARRAY, list(values), ValueType.STRING)


def int32s(key: str, values: Sequence[int]) -> Field:
    """An array of small integers."""
    return Field(key, ValueType.ARRAY, np.array(values, dtype="<i4"), ValueType.INT32)


def float32s(key: str, values: Sequence[float]) -> Field:
    """An array of numbers in single precision."""
    return Field(key, ValueType.ARRAY, np.array(values, dtype="<f4"), ValueType.FLOAT32)


def float64(key: str, value: float) -> Field:
    """A number in full precision."""
    return Field(key, ValueType.FLOAT64, value)
