"""The bytes of an `.apr` file, version 2: header, index entries, data types, padding.

Everything is little-endian, and every section and every tensor is zero-padded to 64 bytes:

    0                     header, 64 bytes
    64                    metadata: one JSON object
    tensor_index_offset   index entries back to back, sorted by name
    data_offset           tensor data
    end of data           footer: CRC-32 of every byte before it

Nothing here judges a file; `sections` does.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

MAGIC = b"APR\x00"
VERSION = (2, 0)
ALIGNMENT = 64
HEADER_BYTES = 64
FOOTER_BYTES = 4

# The Rust writer cuts a longer name, possibly inside a character, and drops further dimensions.
NAME_LIMIT_BYTES = 256
DIMENSIONS_LIMIT = 8

LZ4_COMPRESSED = 0x0001
ZSTD_COMPRESSED = 0x0002
ENCRYPTED = 0x0004
SHARDED = 0x0010
QUANTIZED = 0x0020
HAS_VOCAB = 0x0200
ROW_MAJOR = 0x0400
COLUMN_MAJOR = 0x0800

FLAG_NAMES: dict[int, str] = {
    LZ4_COMPRESSED: "LZ4_COMPRESSED",
    ZSTD_COMPRESSED: "ZSTD_COMPRESSED",
    ENCRYPTED: "ENCRYPTED",
    0x0008: "SIGNED",
    SHARDED: "SHARDED",
    QUANTIZED: "QUANTIZED",
    0x0040: "HAS_FILTERBANK",
    0x0080: "HAS_MODEL_CARD",
    0x0100: "STREAMING",
    HAS_VOCAB: "HAS_VOCAB",
    ROW_MAJOR: "LAYOUT_ROW_MAJOR",
    COLUMN_MAJOR: "LAYOUT_COLUMN_MAJOR",
}

# The header's u64 at byte 12 is not aligned, so no padded C struct describes it.
_HEADER = struct.Struct("<4sBBHIQIQQI20s")
_CHECKSUM_AT = 40
_RESERVED_AT = 44


@dataclass(frozen=True)
class Dtype:
    """How one data type lies in a file: `block_bytes` for every `block_elements` elements."""

    name: str
    code: int
    block_bytes: int
    block_elements: int = 1
    is_row_blocked: bool = False
    """Whether every row is padded to whole blocks, instead of the tensor as a whole."""
    prefix_bytes: int = 0
    """What a tensor that is not empty holds before its first block."""

    @property
    def is_quantized(self) -> bool:
        """Whether elements share scales, so that bytes are not values."""
        return self.block_elements > 1 or self.prefix_bytes > 0

    def size_bytes(self, shape: Sequence[int]) -> int:
        """Bytes of a tensor of this type, without the padding to the next tensor."""
        num_elements = prod(shape)
        if num_elements == 0:
            return 0
        columns = shape[-1] if self.is_row_blocked and shape else num_elements
        blocks_per_row = -(-columns // self.block_elements)
        return self.prefix_bytes + num_elements // columns * blocks_per_row * self.block_bytes


DTYPES: dict[str, Dtype] = {
    dtype.name: dtype
    for dtype in (
        Dtype("f32", 0, 4),
        Dtype("f16", 1, 2),
        Dtype("f64", 3, 8),
        Dtype("i32", 4, 4),
        Dtype("i64", 5, 8),
        Dtype("i8", 6, 1),
        Dtype("u8", 7, 1),
        Dtype("q4_k", 12, 144, block_elements=256, is_row_blocked=True),
        Dtype("q6_k", 14, 210, block_elements=256, is_row_blocked=True),
        Dtype("bf16", 30, 2),
        Dtype("q4", 128, 18, block_elements=32),
        Dtype("q8", 129, 1, prefix_bytes=4),
    )
}

# 8 and 9 are what q4 and q8 were called before 2026.
_BY_CODE = {dtype.code: dtype for dtype in DTYPES.values()} | {8: DTYPES["q4"], 9: DTYPES["q8"]}

# The types that the Rust core and the Rust serving crate both read as what they are.
WRITABLE_DTYPES = ("f32", "f16", "bf16", "q4", "q8", "q4_k", "q6_k")


def dtype_of_code(code: int) -> Dtype | None:
    """The data type that a byte of the index stands for, if any."""
    return _BY_CODE.get(code)


@dataclass(frozen=True)
class Header:
    """The first 64 bytes; offsets count from the start of the file."""

    flags: int
    num_tensors: int
    metadata_offset: int
    metadata_bytes: int
    index_offset: int
    data_offset: int
    version: tuple[int, int] = VERSION
    reserved: bytes = bytes(20)

    @classmethod
    def decode(cls, data: bytes) -> "Header":
        """Read the fields of 64 bytes as they are; magic and checksum are not looked at."""
        _, major, minor, flags, count, metadata_at, metadata_bytes, index_at, data_at, _, rest = (
            _HEADER.unpack(data)
        )
        return cls(
            flags=flags,
            num_tensors=count,
            metadata_offset=metadata_at,
            metadata_bytes=metadata_bytes,
            index_offset=index_at,
            data_offset=data_at,
            version=(major, minor),
            reserved=rest,
        )

    def encode(self) -> bytes:
        """The 64 bytes, checksum included."""
        data = _HEADER.pack(
            MAGIC,
            *self.version,
            self.flags,
            self.num_tensors,
            self.metadata_offset,
            self.metadata_bytes,
            self.index_offset,
            self.data_offset,
            0,
            self.reserved,
        )
        return data[:_CHECKSUM_AT] + struct.pack("<I", header_checksum(data)) + self.reserved


def header_checksum(data: bytes) -> int:
    """CRC-32 of a header's 64 bytes without the four that store it."""
    return zlib.crc32(data[_RESERVED_AT:], zlib.crc32(data[:_CHECKSUM_AT]))


def stored_header_checksum(data: bytes) -> int:
    """The CRC-32 that a header claims to have."""
    return int.from_bytes(data[_CHECKSUM_AT:_RESERVED_AT], "little")


def flag_names(flags: int) -> list[str]:
    """The names of the bits that are set; unassigned ones as hexadecimal numbers."""
    bits = [1 << bit for bit in range(16) if flags >> bit & 1]
    return [FLAG_NAMES.get(bit, f"0x{bit:04x}") for bit in bits]


@dataclass(frozen=True)
class TensorEntry:
    """One row of the index. `offset` counts from the data section, `size_bytes` without padding."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int

    @property
    def num_elements(self) -> int:
        """Number of values; a tensor without dimensions holds one."""
        return prod(self.shape)

    def encode(self) -> bytes:
        """The bytes of this row."""
        name = self.name.encode("utf-8")
        return struct.pack(
            f"<H{len(name)}sBB{len(self.shape)}QQQ",
            len(name),
            name,
            DTYPES[self.dtype].code,
            len(self.shape),
            *self.shape,
            self.offset,
            self.size_bytes,
        )


def padded(size_bytes: int) -> int:
    """A size or position rounded up to the alignment."""
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


def padding_after(size_bytes: int) -> bytes:
    """The zeros that follow a section or tensor of this size."""
    return bytes(padded(size_bytes) - size_bytes)
