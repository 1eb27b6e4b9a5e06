"""Container files made byte by byte, sound and damaged, without the code under test."""

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

HEADER_FIELDS = {
    "version": (4, "<BB"),
    "flags": (6, "<H"),
    "num_tensors": (8, "<I"),
    "metadata_offset": (12, "<Q"),
    "metadata_bytes": (20, "<I"),
    "index_offset": (24, "<Q"),
    "data_offset": (32, "<Q"),
    "reserved": (44, "<20s"),
}

# The file of section 13.2 of the format's description: f16 a.bias [4], f32 b.weight [2, 3].
GOLDEN = bytes.fromhex(
    """
    41505200020000040200000040000000000000006d000000c000000000000000
    40010000000000006cda924c0000000000000000000000000000000000000000
    7b226d6f64656c5f74797065223a22676f6c64656e222c226c6963656e736522
    3a6e756c6c2c22646174615f736f75726365223a6e756c6c2c22646174615f6c
    6963656e7365223a6e756c6c2c22746f74616c5f73697a65223a302c22706172
    616d5f636f756e74223a31307d00000000000000000000000000000000000000
    0600612e62696173010104000000000000000000000000000000080000000000
    00000800622e7765696768740002020000000000000003000000000000004000
    0000000000001800000000000000000000000000000000000000000000000000
    0000000000000000000000000000000000000000000000000000000000000000
    003800bc0040ff7b000000000000000000000000000000000000000000000000
    0000000000000000000000000000000000000000000000000000000000000000
    0000803f000000c00000003f0000504000000000000000be0000000000000000
    0000000000000000000000000000000000000000000000000000000000000000
    da4fea92
    """
)
GOLDEN_INDEX_AT = 192
GOLDEN_DATA_AT = 320


@dataclass
class Row:
    """One tensor as a file spells it; offset and size may lie."""

    name: bytes
    code: int
    shape: Sequence[int]
    data: bytes
    offset: int | None = None
    size: int | None = None


def f32(name: str, *values: float) -> Row:
    return Row(name.encode(), 0, (len(values),), struct.pack(f"<{len(values)}f", *values))


def pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 64)


def build(
    metadata: bytes | dict[str, Any],
    rows: Sequence[Row] = (),
    *,
    num_tensors: int | None = None,
    flags: int = 0x0400,
    footer: bool = True,
) -> bytes:
    """A file with these rows in this order, and checksums that fit whatever it says."""
    text = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    index, data = bytearray(), bytearray()
    for row in rows:
        offset = len(data) if row.offset is None else row.offset
        size = len(row.data) if row.size is None else row.size
        index += struct.pack("<H", len(row.name)) + row.name
        index += struct.pack("<BB", row.code, len(row.shape))
        index += struct.pack(f"<{len(row.shape)}QQQ", *row.shape, offset, size)
        data += pad(row.data)
    index_offset = 64 + len(pad(text))
    head = b"APR\0" + struct.pack(
        "<BBHIQIQQI20s",
        2,
        0,
        flags,
        len(rows) if num_tensors is None else num_tensors,
        64,
        len(text),
        index_offset,
        index_offset + len(pad(index)),
        0,
        bytes(20),
    )
    return sealed(head + pad(text) + pad(index) + data, footer=footer)


def sealed(data: bytes, *, footer: bool = True) -> bytes:
    """The bytes with the header's checksum corrected, and the footer's appended."""
    checksum = struct.pack("<I", zlib.crc32(data[:40] + data[44:64]))
    data = data[:40] + checksum + data[44:]
    return data + struct.pack("<I", zlib.crc32(data)) if footer else data


def resealed(data: bytes, *, at: int, new: bytes) -> bytes:
    """A whole file with some bytes replaced and both checksums made to fit again."""
    return sealed(data[:at] + new + data[at + len(new) : -4])


def with_header(data: bytes, **fields: Any) -> bytes:
    """A whole file with some header fields replaced and both checksums made to fit again."""
    for name, value in fields.items():
        at, form = HEADER_FIELDS[name]
        values = value if isinstance(value, tuple) else (value,)
        data = resealed(data, at=at, new=struct.pack(form, *values))
    return data


def version_1(payload: bytes = b"\1\2\3") -> bytes:
    """A version 1 file: 32 bytes of header, MessagePack, payload, CRC-32."""
    head = b"APRN" + struct.pack("<BBHIIIBBB", 1, 0, 1, 0, len(payload), len(payload), 1, 0, 85)
    data = head + bytes(9) + payload
    return data + struct.pack("<I", zlib.crc32(data))


def one_bit_flipped(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Every byte of a file with one bit flipped, a different bit from byte to byte."""
    for at in range(len(data)):
        flipped = data[at] ^ (1 << at % 8)
        yield at, data[:at] + bytes([flipped]) + data[at + 1 :]
