"""Writing a container: one stream from header to footer, one tensor in memory at a time.

Everything that can be refused is refused before the first byte. Afterwards the finished file is
opened with the strict reader and proved byte by byte, and only then takes the place of its name.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO

from apr.container import free_keys, layout
from apr.container.crc32 import RunningCrc32
from apr.container.layout import DTYPES, Header, TensorEntry
from apr.container.named_keys import Metadata
from apr.container.reader import Container
from apr.errors import Refusal
from apr.files import atomic_writer, require_absent, syncing
from apr.progress import Progress, Report, silent

_PIECE_BYTES = 8 << 20


@dataclass(frozen=True)
class TensorSource:
    """A tensor to be written; `chunks` is called once, when its turn has come.

    The chunks together are the tensor's bytes, whatever their sizes, so that no tensor has to be in
    memory as a whole.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[memoryview]]


def write_container(
    path: Path,
    *,
    metadata: Metadata,
    tensors: Sequence[TensorSource],
    overwrite: bool = False,
    progress: Report = silent,
) -> None:
    """Write an `.apr` file; the same metadata and tensors give the same bytes.

    No key is added. The flags follow from what is written.

    Refuses: files.exists, files.io-failed, container.tensor-name, container.tensor-repeated,
    container.tensor-shape, container.tensor-dtype, container.tensor-size,
    container.metadata-value, container.read-back, and what reading the result back refuses.
    Writes: `path`, whole or not at all.
    """
    require_absent(path, overwrite=overwrite)
    ordered = sorted(tensors, key=lambda tensor: _name_bytes(tensor.name))
    for tensor in ordered:
        _require_writable(tensor)
    for first, second in pairwise(ordered):
        if first.name == second.name:
            raise _refused("container.tensor-repeated", first.name, "the name twice", "it once")
    entries = _placed(ordered)
    front = _front(metadata, entries)
    total_bytes = len(front) + sum(layout.padded(entry.size_bytes) for entry in entries)
    with atomic_writer(path) as target:
        written = 0
        with RunningCrc32() as crc:
            for chunk in _stream(front, ordered, entries):
                crc.add(chunk)
                target.write(chunk)
                written += len(chunk)
                progress(Progress(f"writing {path}", written, total_bytes, "bytes"))
            target.write(struct.pack("<I", crc.value()))
        target.flush()
        with syncing(target):
            _require_reads_back(target, path, metadata, entries, progress)


def _require_writable(tensor: TensorSource) -> None:
    if len(_name_bytes(tensor.name)) > layout.NAME_LIMIT_BYTES:
        raise _refused(
            "container.tensor-name",
            tensor.name,
            f"{len(_name_bytes(tensor.name))} bytes of name",
            f"at most {layout.NAME_LIMIT_BYTES}; the Rust writer cuts the rest off",
        )
    if tensor.dtype not in layout.WRITABLE_DTYPES:
        raise _refused(
            "container.tensor-dtype",
            tensor.name,
            f"{tensor.dtype!r}",
            "one of " + ", ".join(layout.WRITABLE_DTYPES),
        )
    if len(tensor.shape) > layout.DIMENSIONS_LIMIT or any(size < 0 for size in tensor.shape):
        raise _refused(
            "container.tensor-shape",
            tensor.name,
            f"shape {list(tensor.shape)}",
            f"at most {layout.DIMENSIONS_LIMIT} dimensions, none negative",
        )
    dtype = DTYPES[tensor.dtype]
    if dtype.is_row_blocked and (not tensor.shape or tensor.shape[-1] % dtype.block_elements):
        # The Rust core dequantises by the flat number of elements and would misread padded rows.
        raise _refused(
            "container.tensor-shape",
            tensor.name,
            f"rows of {tensor.shape[-1] if tensor.shape else 1} elements in {tensor.dtype}",
            f"a multiple of {dtype.block_elements}",
        )


def _placed(tensors: Sequence[TensorSource]) -> list[TensorEntry]:
    entries: list[TensorEntry] = []
    offset = 0
    for tensor in tensors:
        size_bytes = DTYPES[tensor.dtype].size_bytes(tensor.shape)
        entries.append(TensorEntry(tensor.name, tensor.dtype, tensor.shape, offset, size_bytes))
        offset += layout.padded(size_bytes)
    return entries


def _front(metadata: Metadata, entries: Sequence[TensorEntry]) -> bytes:
    text = metadata.encode()
    rows = b"".join(entry.encode() for entry in entries)
    index_offset = layout.HEADER_BYTES + layout.padded(len(text))
    header = Header(
        flags=_flags(metadata, entries),
        num_tensors=len(entries),
        metadata_offset=layout.HEADER_BYTES,
        metadata_bytes=len(text),
        index_offset=index_offset,
        data_offset=index_offset + layout.padded(len(rows)),
    )
    padded_text = text + layout.padding_after(len(text))
    return header.encode() + padded_text + rows + layout.padding_after(len(rows))


def _flags(metadata: Metadata, entries: Sequence[TensorEntry]) -> int:
    flags = layout.ROW_MAJOR
    if free_keys.VOCABULARY in metadata.free:
        flags |= layout.HAS_VOCAB
    if any(DTYPES[entry.dtype].is_quantized for entry in entries):
        flags |= layout.QUANTIZED
    return flags


def _stream(
    front: bytes, tensors: Sequence[TensorSource], entries: Sequence[TensorEntry]
) -> Iterator[bytes | memoryview]:
    yield front
    for tensor, entry in zip(tensors, entries, strict=True):
        # A generator of its own, so that this tensor is let go before the next one is made.
        yield from _pieces(tensor, entry)
        yield layout.padding_after(entry.size_bytes)


def _pieces(tensor: TensorSource, entry: TensorEntry) -> Iterator[memoryview]:
    written = 0
    for chunk in tensor.chunks():
        if not chunk.c_contiguous:
            raise _wrong_size(tensor, entry, f"{chunk.nbytes} bytes, not contiguous")
        written += chunk.nbytes
        # A view with a dimension of 0 cannot be cast, and has nothing to write.
        flat = chunk.cast("B") if chunk.nbytes else memoryview(b"")
        for at in range(0, len(flat), _PIECE_BYTES):
            yield flat[at : at + _PIECE_BYTES]
    if written != entry.size_bytes:
        raise _wrong_size(tensor, entry, f"{written} bytes")


def _wrong_size(tensor: TensorSource, entry: TensorEntry, found: str) -> Refusal:
    return _refused(
        "container.tensor-size",
        tensor.name,
        found,
        f"{entry.size_bytes} contiguous bytes, for {tensor.dtype} {list(tensor.shape)}",
    )


def _require_reads_back(
    target: IO[bytes],
    path: Path,
    metadata: Metadata,
    entries: Sequence[TensorEntry],
    progress: Report,
) -> None:
    try:
        # Never closed here: the file is the writer's, and still to be renamed.
        written = Container.from_file(target, path=path)
        written.verify(progress=progress)
    except Refusal as err:
        raise _not_read_back(path, f"{err.id}: {err.found}", err.expected) from err
    # Compared as bytes: reading turns tuples into lists, which is no difference.
    if written.metadata.encode() != metadata.encode() or written.sections.doubled_spellings:
        raise _not_read_back(path, "other metadata", "the metadata that was given")
    if list(written.tensors.values()) != list(entries):
        raise _not_read_back(path, "other tensors", "the tensors that were given")


def _not_read_back(path: Path, found: str, expected: str) -> Refusal:
    return Refusal(
        "container.read-back",
        path,
        found=found,
        expected=expected,
        fix="nothing was written; correct the metadata or the tensors and write again",
    )


def _name_bytes(name: str) -> bytes:
    try:
        return name.encode("utf-8")
    except UnicodeEncodeError as err:
        expected = "a name that has a UTF-8 form"
        raise _refused("container.tensor-name", ascii(name), "a lone surrogate", expected) from err


def _refused(id: str, name: str, found: str, expected: str) -> Refusal:
    return Refusal(
        id,
        f"tensor {name!r:.80} to be written",
        found=found,
        expected=expected,
        fix="correct the tensor, or leave it out; nothing was written",
    )
