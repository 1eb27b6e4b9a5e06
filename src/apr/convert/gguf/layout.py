"""The bytes of a GGUF file: header, fields, tensor infos, data types, alignment.

Everything is little-endian:

    0                   magic, version, number of tensors, number of fields
    24                  fields back to back: key, type, value
    after them          tensor infos back to back: name, dimensions, type, offset
    next multiple       tensor data, every tensor at a multiple of the alignment
    of the alignment

Nothing here judges a file; `reader` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import prod

MAGIC = b"GGUF"
VERSION = 3
READABLE_VERSIONS = (2, 3)  # 3 differs from 2 in nothing but that big-endian files exist
HEADER_BYTES = 24
DEFAULT_ALIGNMENT = 32

# ggml's own limits; its readers refuse what is beyond them.
DIMENSIONS_LIMIT = 4
TENSOR_NAME_LIMIT_BYTES = 63

ALIGNMENT_KEY = "general.alignment"
ARCHITECTURE_KEY = "general.architecture"


class ValueType(IntEnum):
    """What a field's value is."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


# As struct and numpy both spell them. A bool is one byte, and only 0 and 1 are bools.
SCALAR_FORMATS: dict[ValueType, str] = {
    ValueType.UINT8: "<B",
    ValueType.INT8: "<b",
    ValueType.UINT16: "<H",
    ValueType.INT16: "<h",
    ValueType.UINT32: "<I",
    ValueType.INT32: "<i",
    ValueType.FLOAT32: "<f",
    ValueType.BOOL: "<B",
    ValueType.UINT64: "<Q",
    ValueType.INT64: "<q",
    ValueType.FLOAT64: "<d",
}


@dataclass(frozen=True)
class TensorType:
    """How one data type lies in a file: `block_bytes` for every `block_elements` of a row."""

    code: int
    name: str
    """As ggml spells it."""
    block_elements: int
    block_bytes: int
    dtype: str | None = None
    """As apr names it; None where apr does not compute with it."""

    def size_bytes(self, shape: Sequence[int]) -> int:
        """Bytes of a tensor of this type whose rows are whole blocks."""
        return prod(shape) // self.block_elements * self.block_bytes


TENSOR_TYPES: dict[int, TensorType] = {
    each.code: each
    for each in (
        TensorType(0, "F32", 1, 4, "f32"),
        TensorType(1, "F16", 1, 2, "f16"),
        TensorType(2, "Q4_0", 32, 18),
        TensorType(3, "Q4_1", 32, 20),
        TensorType(6, "Q5_0", 32, 22),
        TensorType(7, "Q5_1", 32, 24),
        TensorType(8, "Q8_0", 32, 34, "q8_0"),
        TensorType(9, "Q8_1", 32, 40),
        TensorType(10, "Q2_K", 256, 84),
        TensorType(11, "Q3_K", 256, 110),
        TensorType(12, "Q4_K", 256, 144, "q4_k"),
        TensorType(13, "Q5_K", 256, 176),
        TensorType(14, "Q6_K", 256, 210, "q6_k"),
        TensorType(15, "Q8_K", 256, 292),
        TensorType(16, "IQ2_XXS", 256, 66),
        TensorType(17, "IQ2_XS", 256, 74),
        TensorType(18, "IQ3_XXS", 256, 98),
        TensorType(19, "IQ1_S", 256, 50),
        TensorType(20, "IQ4_NL", 32, 18),
        TensorType(21, "IQ3_S", 256, 110),
        TensorType(22, "IQ2_S", 256, 82),
        TensorType(23, "IQ4_XS", 256, 136),
        TensorType(24, "I8", 1, 1),
        TensorType(25, "I16", 1, 2),
        TensorType(26, "I32", 1, 4),
        TensorType(27, "I64", 1, 8),
        TensorType(28, "F64", 1, 8),
        TensorType(29, "IQ1_M", 256, 56),
        TensorType(30, "BF16", 1, 2, "bf16"),
        TensorType(34, "TQ1_0", 256, 54),
        TensorType(35, "TQ2_0", 256, 66),
        TensorType(39, "MXFP4", 32, 17),
        TensorType(40, "NVFP4", 64, 36),
        TensorType(41, "Q1_0", 128, 18),
    )
}

BY_DTYPE: dict[str, TensorType] = {
    each.dtype: each for each in TENSOR_TYPES.values() if each.dtype is not None
}


def padded(size_bytes: int, alignment: int) -> int:
    """A size or position rounded up to the alignment."""
    return -(-size_bytes // alignment) * alignment
