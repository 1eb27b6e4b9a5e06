"""Writing a GGUF file: one stream from header to last tensor, one piece of a tensor in memory.

Everything that can be refused is refused before the first byte. Afterwards the finished file is
read with the strict reader, its fields, tensor infos and every byte of its tensors compared with
what was to be written, and only then takes the place of its name.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from apr.convert.gguf import layout
from apr.convert.gguf.layout import BY_DTYPE, SCALAR_FORMATS, ValueType
from apr.convert.gguf.reader import GgufFile, read_front, read_tensor
from apr.convert.gguf.values import Field
from apr.convert.source import SourceTensor
from apr.errors import Refusal
from apr.files import atomic_writer, require_absent, syncing
from apr.progress import Progress, Report, silent

_ALIGNMENT = layout.DEFAULT_ALIGNMENT


def write_gguf(
    path: Path,
    *,
    fields: Sequence[Field],
    tensors: Sequence[SourceTensor],
    overwrite: bool = False,
    progress: Report = silent,
) -> GgufFile:
    """Write a GGUF file of version 3; the same fields and tensors give the same bytes.

    Fields and tensors are written in the order given, no key is added, and tensors carry GGUF's
    names. What is returned was read back from the finished file.

    Refuses: files.exists, files.io-failed, gguf.field-value, gguf.tensor-not-writable,
    gguf.tensor-size, gguf.read-back, and what reading the result back refuses.
    Writes: `path`, whole or not at all.
    """
    require_absent(path, overwrite=overwrite)
    _require_unique([field.key for field in fields], "field")
    _require_unique([tensor.name for tensor in tensors], "tensor")
    infos, data_bytes = _tensor_infos(tensors)
    head = struct.pack("<4sIQQ", layout.MAGIC, layout.VERSION, len(tensors), len(fields))
    front = head + b"".join(map(_encode_field, fields)) + infos
    front += bytes(layout.padded(len(front), _ALIGNMENT) - len(front))
    total_bytes = len(front) + data_bytes
    with atomic_writer(path) as target:
        target.write(front)
        written, digests = len(front), list[bytes]()
        for tensor in tensors:
            digest = hashlib.sha256()
            for piece in _pieces(tensor):
                target.write(piece)
                digest.update(piece)
                written += len(piece)
                progress(Progress(f"writing {path}", written, total_bytes, "bytes"))
            digests.append(digest.digest())
            padding = bytes(layout.padded(written, _ALIGNMENT) - written)
            target.write(padding)
            written += len(padding)
        target.flush()
        with syncing(target):
            file = _read_back(target, path, fields, tensors, digests, progress)
    # Renaming keeps device, inode, size and time of writing: the stamp still holds.
    return file


def _require_unique(names: Sequence[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise _refused_tensor(name, f"the {what} twice", "it once")
        seen.add(name)


def _encode_field(field: Field) -> bytes:
    try:
        head = _encode_text(field.key) + struct.pack("<I", field.type)
        if field.type != ValueType.ARRAY:
            return head + _encode_single(field.type, field.value)
        values = field.value
        if field.element == ValueType.STRING and isinstance(values, list):
            body = b"".join(map(_encode_text, values))
        elif field.element is not None and isinstance(values, np.ndarray):
            body = values.astype(SCALAR_FORMATS[field.element], casting="no").tobytes()
        else:
            raise TypeError(f"an array of {field.element}")
        return head + struct.pack("<IQ", int(field.element), len(values)) + body
    except (TypeError, ValueError, AttributeError, KeyError, struct.error) as err:
        raise Refusal(
            "gguf.field-value",
            f"field {field.key!r:.80} to be written",
            found=f"{field.value!r:.80}",
            expected=f"a value that fits {field.type.name}",
            fix="correct the value; nothing was written",
        ) from err


def _encode_text(value: str) -> bytes:
    data = value.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _encode_single(kind: ValueType, value: Any) -> bytes:
    if kind == ValueType.STRING:
        return _encode_text(value)
    if kind == ValueType.BOOL and type(value) is not bool:
        raise TypeError("no bool")
    return struct.pack(SCALAR_FORMATS[kind], value)


def _tensor_infos(tensors: Sequence[SourceTensor]) -> tuple[bytes, int]:
    infos: list[bytes] = []
    offset = 0
    for tensor in tensors:
        kind = BY_DTYPE.get(tensor.dtype)
        if kind is None:
            expected = "one of " + ", ".join(BY_DTYPE)
            raise _refused_tensor(tensor.name, f"data type {tensor.dtype}", expected)
        shape = tensor.shape
        if not 1 <= len(shape) <= layout.DIMENSIONS_LIMIT or min(shape) < 1:
            expected = f"1 to {layout.DIMENSIONS_LIMIT} dimensions, none empty"
            raise _refused_tensor(tensor.name, f"shape {list(shape)}", expected)
        if shape[-1] % kind.block_elements:
            found = f"rows of {shape[-1]} elements in {tensor.dtype}"
            raise _refused_tensor(tensor.name, found, f"a multiple of {kind.block_elements}")
        if len(tensor.name.encode("utf-8")) > layout.TENSOR_NAME_LIMIT_BYTES:
            expected = f"at most {layout.TENSOR_NAME_LIMIT_BYTES} bytes of name"
            raise _refused_tensor(tensor.name, "a longer name", expected)
        infos.append(
            _encode_text(tensor.name)
            + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind.code, offset)
        )
        offset += layout.padded(kind.size_bytes(shape), _ALIGNMENT)
    return b"".join(infos), offset


def _pieces(tensor: SourceTensor) -> Iterator[memoryview]:
    written, expected = 0, BY_DTYPE[tensor.dtype].size_bytes(tensor.shape)
    for chunk in tensor.chunks():
        written += chunk.nbytes
        if written > expected:
            break
        yield chunk.cast("B")
    if written != expected:
        raise Refusal(
            "gguf.tensor-size",
            f"tensor {tensor.name!r:.80} to be written",
            found=f"{written} bytes" + (" or more" if written > expected else ""),
            expected=f"{expected}, for {tensor.dtype} {list(tensor.shape)}",
            fix="correct the tensor; nothing was written",
        )


def _read_back(
    target: IO[bytes],
    path: Path,
    fields: Sequence[Field],
    tensors: Sequence[SourceTensor],
    digests: Sequence[bytes],
    progress: Report,
) -> GgufFile:
    try:
        file = read_front(target.fileno(), path=path)
    except Refusal as err:
        raise _not_read_back(path, f"{err.id}: {err.found}", err.expected) from err
    read = list(file.fields.values())
    if len(read) != len(fields) or not all(map(Field.equals, read, fields)):
        raise _not_read_back(path, "other fields", "the fields that were given")
    given = [(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors]
    if given != [(info.name, info.type.dtype, info.shape) for info in file.tensors.values()]:
        raise _not_read_back(path, "other tensors", "the tensors that were given")
    for info, digest in zip(file.tensors.values(), digests, strict=True):
        found = hashlib.sha256()
        for piece in read_tensor(target.fileno(), info, where=str(path)):
            found.update(piece)
        if found.digest() != digest:
            raise _not_read_back(path, f"other bytes of {info.name!r}", "those that were given")
        done = info.start + info.size_bytes
        progress(Progress(f"reading {path} back", done, file.size_bytes, "bytes"))
    return file


def _not_read_back(path: Path, found: str, expected: str) -> Refusal:
    return Refusal(
        "gguf.read-back",
        path,
        found=found,
        expected=expected,
        fix="nothing was written; run the command again, and report it if it happens twice",
    )


def _refused_tensor(name: str, found: str, expected: str) -> Refusal:
    return Refusal(
        "gguf.tensor-not-writable",
        f"{name!r:.80} to be written",
        found=found,
        expected=expected,
        fix="choose a data type that GGUF and the shape of the tensor allow",
    )
