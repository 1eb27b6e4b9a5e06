"""Writing a safetensors file: one stream from header to last byte, then read back.

The bytes are those of the reference library for the same tensors: the widest types first, then by
name, the header padded with spaces to eight bytes.
"""

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import IO, Any

from apr.container.crc32 import RunningCrc32
from apr.convert.huggingface.safetensors_file import (
    HEADER_LIMIT_BYTES,
    LENGTH_BYTES,
    METADATA_KEY,
    WIDTHS,
    read_header,
)
from apr.convert.source import CHUNK_BYTES, SourceTensor
from apr.errors import Refusal
from apr.files import atomic_writer, syncing
from apr.progress import Progress, Report, silent

# The order of the reference library, which puts what needs the strictest alignment first.
_WIDEST_FIRST = ("F32", "BF16", "F16", "U8")


def write_safetensors(
    path: Path,
    tensors: Sequence[SourceTensor],
    *,
    metadata: Mapping[str, str] | None = None,
    progress: Report = silent,
) -> None:
    """Write a safetensors file that holds exactly these tensors; f32, bf16, f16 and u8.

    `metadata` is `{"format": "pt"}` unless given: Hugging Face's loaders demand it.

    Refuses: safetensors.unwritable, safetensors.written-size, safetensors.read-back,
    files.io-failed.
    Writes: `path`, whole or not at all.
    """
    ordered = sorted(tensors, key=lambda tensor: (_rank(tensor), tensor.name))
    header = _header(ordered, {"format": "pt"} if metadata is None else metadata)
    total_bytes = len(header) + sum(size_bytes(tensor) for tensor in ordered)
    with atomic_writer(path) as target:
        written = 0
        with RunningCrc32() as crc:
            for chunk in _stream(header, ordered):
                crc.add(chunk)
                target.write(chunk)
                written += len(chunk)
                progress(Progress(f"writing {path.name}", written, total_bytes, "bytes"))
            written_crc32 = crc.value()
        target.flush()
        with syncing(target):
            _require_reads_back(target, path, ordered, written_crc32)


def size_bytes(tensor: SourceTensor) -> int:
    """Bytes of a tensor in a file.

    Refuses: safetensors.unwritable.
    """
    _rank(tensor)
    return prod(tensor.shape) * WIDTHS[tensor.dtype.upper()]


def _rank(tensor: SourceTensor) -> int:
    dtype = tensor.dtype.upper()
    if dtype not in _WIDEST_FIRST:
        raise _unwritable(tensor.name, tensor.dtype, f"one of {', '.join(_WIDEST_FIRST).lower()}")
    return _WIDEST_FIRST.index(dtype)


def _header(tensors: Sequence[SourceTensor], metadata: Mapping[str, str]) -> bytes:
    rows: dict[str, Any] = {METADATA_KEY: dict(metadata)} if metadata else {}
    at = 0
    for tensor in tensors:
        if not tensor.name or tensor.name == METADATA_KEY:
            raise _unwritable(tensor.name, f"the name {tensor.name!r}", "a name of a tensor")
        if tensor.name in rows:
            raise _unwritable(tensor.name, "the name twice", "it once")
        stop = at + size_bytes(tensor)
        rows[tensor.name] = {
            "dtype": tensor.dtype.upper(),
            "shape": list(tensor.shape),
            "data_offsets": [at, stop],
        }
        at = stop
    try:
        text = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as err:
        raise _unwritable("", "a lone surrogate in a name", "names in UTF-8") from err
    text += b" " * (-len(text) % LENGTH_BYTES)
    if len(text) > HEADER_LIMIT_BYTES:
        raise _unwritable("", f"a header of {len(text)} bytes", f"at most {HEADER_LIMIT_BYTES}")
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _stream(header: bytes, tensors: Sequence[SourceTensor]) -> Iterator[bytes | memoryview]:
    yield header
    for tensor in tensors:
        yield from _pieces(tensor)


def _pieces(tensor: SourceTensor) -> Iterator[memoryview]:
    written, expected = 0, size_bytes(tensor)
    for chunk in tensor.chunks():
        written += chunk.nbytes
        # Noticed before a source that never ends fills the disk.
        if not chunk.c_contiguous or written > expected:
            raise _wrong_size(tensor, written, expected)
        # A view with a dimension of 0 cannot be cast, and has nothing to write.
        flat = chunk.cast("B") if chunk.nbytes else memoryview(b"")
        for at in range(0, len(flat), CHUNK_BYTES):
            yield flat[at : at + CHUNK_BYTES]
    if written != expected:
        raise _wrong_size(tensor, written, expected)


def _require_reads_back(
    target: IO[bytes], path: Path, tensors: Sequence[SourceTensor], crc: int
) -> None:
    """Compare the finished file with what was meant, before it takes its name."""
    handle = target.fileno()
    _, entries = read_header(handle, where=str(path))
    found = [(entry.name, entry.dtype.lower(), entry.shape) for entry in entries.values()]
    meant = [(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors]
    read_crc, at = 0, 0
    while chunk := os.pread(handle, CHUNK_BYTES, at):
        read_crc = zlib.crc32(chunk, read_crc)
        at += len(chunk)
    if sorted(found) != sorted(meant) or read_crc != crc:
        raise Refusal(
            "safetensors.read-back",
            path,
            found="other tensors" if read_crc == crc else f"CRC-32 {read_crc:08x}",
            expected="the tensors that were given" if read_crc == crc else f"{crc:08x}",
            fix="nothing was written; check the disk and write again",
        )


def _wrong_size(tensor: SourceTensor, found: int, expected: int) -> Refusal:
    return Refusal(
        "safetensors.written-size",
        f"tensor {tensor.name!r:.80} to be written",
        found=f"{found} bytes or more, or not contiguous",
        expected=f"{expected} contiguous bytes, for {tensor.dtype} {list(tensor.shape)}",
        fix="the source of the tensor is damaged; nothing was written",
    )


def _unwritable(name: str, found: str, expected: str) -> Refusal:
    return Refusal(
        "safetensors.unwritable",
        f"tensor {name!r:.80} to be written",
        found=found,
        expected=expected,
        fix="correct the tensor, or leave it out; nothing was written",
    )
