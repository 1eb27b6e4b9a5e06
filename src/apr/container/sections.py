"""The strict parser: from the bytes of a file to header, metadata, index, and a map of every byte.

Every length and offset in the file is somebody's claim. Each is compared with the length of the
file before it is used, and nothing is allocated from an unchecked count.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap

from apr.container import layout, strangers, version1
from apr.container.advice import COPY_AGAIN
from apr.container.extents import Extent, extent_of, tiled
from apr.container.index import read_index, require_sound
from apr.container.layout import Header, TensorEntry
from apr.container.metadata_json import METADATA_LIMIT_BYTES, doubled_spellings, read_object
from apr.container.named_keys import Metadata
from apr.errors import DamagedFile

INDEX_LIMIT_BYTES = 64 << 20

_UNREADABLE_FLAGS = {
    layout.LZ4_COMPRESSED: "the two Rust readers disagree on what this bit means",
    layout.ZSTD_COMPRESSED: "the two Rust readers disagree on what this bit means",
    layout.ENCRYPTED: "how encrypted files are laid out is not published",
    layout.COLUMN_MAJOR: "no core reader accepts column-major tensors",
}
_OLD_MAGICS = (b"APR1", b"APR2")


@dataclass(frozen=True)
class Sections:
    """What a file holds, once every claim in it has been compared with its length."""

    header: Header
    metadata: Metadata
    tensors: dict[str, TensorEntry]
    """By name, in the order of the index."""
    extents: tuple[Extent, ...]
    """Every byte before the footer, in order and without gaps."""
    has_footer: bool
    doubled_spellings: tuple[tuple[str, ...], ...]
    """Metadata keys that name one field twice; the Rust serving crate then drops all metadata."""
    notes: tuple[str, ...]
    """What a foreign writer may do and ours never does."""

    @property
    def end_of_data(self) -> int:
        """Where the footer stands, if there is one."""
        return self.extents[-1].stop


def read_sections(data: bytes | mmap, *, where: str) -> Sections:
    """Parse and check everything but the tensors' values and the footer's checksum.

    Refuses: container.not-apr, container.version-1, container.unsupported-magic,
    container.truncated, container.header-checksum, container.unsupported-flag,
    container.section-bounds, container.section-too-large, container.metadata-not-json,
    container.metadata-alias, container.metadata-value, container.sharded,
    container.index-damaged, container.tensor-name, container.index-unsorted,
    container.tensor-repeated, container.dtype-unknown, container.tensor-shape,
    container.tensor-out-of-bounds, container.tensor-size, container.tensors-overlap,
    container.hole, container.length.
    """
    header = _read_header(data, where)
    metadata_end = _require_section_bounds(header, len(data), where)
    raw_metadata = read_object(data[header.metadata_offset : metadata_end], where=where)
    metadata = Metadata.from_object(raw_metadata, where=where)
    if header.flags & layout.SHARDED:
        raise _sharded(metadata, where)
    rows = data[header.index_offset : header.data_offset]
    tensors, index_bytes = read_index(rows, header.num_tensors, where=where)
    for entry in tensors.values():
        require_sound(entry, data_offset=header.data_offset, length=len(data), where=where)
    extents = tiled(
        [
            Extent(0, layout.HEADER_BYTES, "header"),
            Extent(header.metadata_offset, metadata_end, "metadata"),
            Extent(header.index_offset, header.index_offset + index_bytes, "index"),
            *(extent_of(entry, data_offset=header.data_offset) for entry in tensors.values()),
        ],
        data_offset=header.data_offset,
        where=where,
    )
    has_footer = _require_length(extents[-1].stop, len(data), where)
    doubled = tuple(doubled_spellings(raw_metadata))
    return Sections(
        header=header,
        metadata=metadata,
        tensors=tensors,
        extents=extents,
        has_footer=has_footer,
        doubled_spellings=doubled,
        notes=tuple(_notes(header, extents, has_footer=has_footer, doubled=doubled)),
    )


def _read_header(data: bytes | mmap, where: str) -> Header:
    head = data[: layout.HEADER_BYTES]
    magic = head[:4]
    if magic == version1.MAGIC:
        raise version1.refusal(head, where=where)
    if magic in _OLD_MAGICS:
        raise DamagedFile(
            "container.unsupported-magic",
            where,
            found=f"{magic.decode()}, an early form of the format",
            expected="an .apr file of version 2",
            fix="convert it with a Rust apr of its time; its layout is not published",
        )
    if len(head) < layout.HEADER_BYTES and layout.MAGIC.startswith(magic):
        raise _truncated(where, len(data), layout.HEADER_BYTES, "the header")
    if magic != layout.MAGIC:
        raise strangers.refusal(head, length=len(data), where=where)
    if layout.stored_header_checksum(head) != layout.header_checksum(head):
        raise DamagedFile(
            "container.header-checksum",
            where,
            found=f"CRC-32 {layout.header_checksum(head):08x}",
            expected=f"{layout.stored_header_checksum(head):08x}, as the header says",
            fix=COPY_AGAIN,
        )
    header = Header.decode(head)
    for flag, reason in _UNREADABLE_FLAGS.items():
        if header.flags & flag:
            raise DamagedFile(
                "container.unsupported-flag",
                where,
                found=f"{layout.FLAG_NAMES[flag]} (0x{flag:04x})",
                expected="plain row-major tensors",
                fix=f"write the file without it: {reason}",
            )
    return header


def _require_section_bounds(header: Header, length: int, where: str) -> int:
    metadata_end = header.metadata_offset + header.metadata_bytes
    borders = (
        layout.HEADER_BYTES,
        header.metadata_offset,
        metadata_end,
        header.index_offset,
        header.data_offset,
    )
    if list(borders) != sorted(borders):
        raise DamagedFile(
            "container.section-bounds",
            where,
            found=f"metadata {header.metadata_offset} to {metadata_end}, "
            f"index at {header.index_offset}, data at {header.data_offset}",
            expected="header, metadata, index and data in this order",
            fix=COPY_AGAIN,
        )
    if header.data_offset > length:
        raise _truncated(where, length, header.data_offset, "header, metadata and index")
    index_bytes = header.data_offset - header.index_offset
    for section, size_bytes, limit in (
        ("metadata", header.metadata_bytes, METADATA_LIMIT_BYTES),
        ("index", index_bytes, INDEX_LIMIT_BYTES),
    ):
        if size_bytes > limit:
            raise DamagedFile(
                "container.section-too-large",
                where,
                found=f"{size_bytes} bytes of {section}",
                expected=f"at most {limit}",
                fix="no model needs this much; get the file from a source you trust",
            )
    return metadata_end


def _require_length(end_of_data: int, length: int, where: str) -> bool:
    if length < end_of_data:
        raise _truncated(where, length, end_of_data, "the padded tensors")
    if length not in (end_of_data, end_of_data + layout.FOOTER_BYTES):
        raise DamagedFile(
            "container.length",
            where,
            found=f"{length} bytes",
            expected=f"{end_of_data + layout.FOOTER_BYTES}, data and footer",
            fix=COPY_AGAIN,
        )
    return length > end_of_data


def _notes(
    header: Header,
    extents: tuple[Extent, ...],
    *,
    has_footer: bool,
    doubled: tuple[tuple[str, ...], ...],
) -> Iterator[str]:
    if header.version != layout.VERSION:
        yield "header version {}.{}".format(*header.version)
    if unassigned := header.flags & ~sum(layout.FLAG_NAMES):
        yield f"unassigned flag bits 0x{unassigned:04x}"
    if not header.flags & layout.ROW_MAJOR:
        yield "no layout flag: taken as row-major, as older files are"
    if any(header.reserved):
        yield "reserved header bytes are not zero"
    tensors = [extent for extent in extents if extent.tensor]
    if unaligned := sum(extent.start % layout.ALIGNMENT > 0 for extent in tensors):
        yield f"{unaligned} tensors do not start at a multiple of {layout.ALIGNMENT}"
    if not has_footer:
        yield "no footer: nothing protects metadata and index"
    for group in doubled:
        yield f"one field under several keys: {', '.join(group)}"


def _sharded(metadata: Metadata, where: str) -> DamagedFile:
    part = metadata.sharding
    found = f"file {part.shard_index} of {part.shard_count}" if part else "an undescribed part"
    return DamagedFile(
        "container.sharded",
        where,
        found=f"{found} of a model in several files",
        expected="a model in one file",
        fix="join the files with the tool that made them; no loader for several is published",
    )


def _truncated(where: str, length: int, needed: int, what: str) -> DamagedFile:
    return DamagedFile(
        "container.truncated",
        where,
        found=f"{length} bytes",
        expected=f"at least {needed}, for {what}",
        fix=COPY_AGAIN,
    )
