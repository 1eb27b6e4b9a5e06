"""The fields of a GGUF file by key, each taken only as the type that it must have."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from apr.convert.gguf.layout import ValueType
from apr.convert.gguf.values import Field
from apr.errors import DamagedFile, Refusal

_INTEGERS = (
    ValueType.UINT8,
    ValueType.INT8,
    ValueType.UINT16,
    ValueType.INT16,
    ValueType.UINT32,
    ValueType.INT32,
    ValueType.UINT64,
    ValueType.INT64,
)
_FLOATS = (ValueType.FLOAT32, ValueType.FLOAT64)


class Metadata:
    """What a file says of itself, asked for key by key."""

    def __init__(self, fields: Mapping[str, Field], *, where: str) -> None:
        self.fields = fields
        self.where = where

    def __contains__(self, key: str) -> bool:
        return key in self.fields

    def require(self, key: str) -> Field:
        """A field that must be there.

        Refuses: gguf.key-missing.
        """
        field = self.fields.get(key)
        if field is None:
            raise Refusal(
                "gguf.key-missing",
                self.where,
                found=f"no field {key}",
                expected="the field, which no default can stand for",
                fix="convert the model again with a current llama.cpp",
            )
        return field

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number, or the default where the key is absent.

        A list is taken where all its elements are equal: some writers repeat one per layer.

        Refuses: gguf.key-missing, gguf.key-type, gguf.layers-differ.
        """
        if default is not None and key not in self.fields:
            return default
        field = self.require(key)
        if field.type in _INTEGERS and isinstance(field.value, int):
            return field.value
        if field.type == ValueType.ARRAY and field.element in _INTEGERS:
            return self._same_in_all_layers(field)
        raise self._wrong_type(field, "a whole number")

    def number(self, key: str, default: float | None = None) -> float:
        """A number as it was before single precision: the shortest that rounds to what is stored.

        Refuses: gguf.key-missing, gguf.key-type.
        """
        if default is not None and key not in self.fields:
            return default
        field = self.require(key)
        if field.type == ValueType.FLOAT32 and isinstance(field.value, float):
            return float(str(np.float32(field.value)))
        if field.type in (*_FLOATS, *_INTEGERS) and isinstance(field.value, int | float):
            return float(field.value)
        raise self._wrong_type(field, "a number")

    def boolean(self, key: str, default: bool) -> bool:
        """A yes or a no, or the default where the key is absent.

        Refuses: gguf.key-type.
        """
        field = self.fields.get(key)
        if field is None:
            return default
        if isinstance(field.value, bool):
            return field.value
        raise self._wrong_type(field, "a bool")

    def text(self, key: str) -> str | None:
        """A string, or None where the key is absent.

        Refuses: gguf.key-type.
        """
        field = self.fields.get(key)
        if field is None:
            return None
        if isinstance(field.value, str):
            return field.value
        raise self._wrong_type(field, "a string")

    def texts(self, key: str) -> list[str] | None:
        """An array of strings, or None where the key is absent.

        Refuses: gguf.key-type.
        """
        field = self.fields.get(key)
        if field is None:
            return None
        if field.element == ValueType.STRING and isinstance(field.value, list):
            return field.value
        raise self._wrong_type(field, "an array of strings")

    def integers(self, key: str) -> list[int] | None:
        """An array of whole numbers, or None where the key is absent.

        Refuses: gguf.key-type.
        """
        field = self.fields.get(key)
        if field is None:
            return None
        if field.element in _INTEGERS and isinstance(field.value, np.ndarray):
            return field.value.tolist()
        raise self._wrong_type(field, "an array of whole numbers")

    def _same_in_all_layers(self, field: Field) -> int:
        listed: list[int] = np.unique(np.asarray(field.value)).tolist()
        if len(listed) == 1:
            return listed[0]
        raise Refusal(
            "gguf.layers-differ",
            f"{self.where}, field {field.key}",
            found=f"{len(listed)} different values: {listed!r:.80}",
            expected="one value for all layers",
            fix="use a model whose layers have one shape",
        )

    def _wrong_type(self, field: Field, expected: str) -> DamagedFile:
        kind: Any = field.type.name if field.element is None else f"array of {field.element.name}"
        return DamagedFile(
            "gguf.key-type",
            f"{self.where}, field {field.key}",
            found=f"{kind}: {field.value!r:.80}",
            expected=expected,
            fix="convert the model again with a current llama.cpp",
        )
