"""Tensors of a source as fp32 values: whole, some rows, or one block of rows at a time."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apr.container.layout import DTYPES
from apr.convert.source import CHUNK_BYTES, SourceTensor
from apr.quantization.formats import block_sizes, dequantizer, prefix_bytes

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Weights:
    """Values by Hugging Face's names; nothing is kept between two calls."""

    tensors: Mapping[str, SourceTensor]

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def whole(self, name: str) -> Values:
        """A tensor's values in its shape; for anything but an embedding or a head."""
        tensor = self.tensors[name]
        values = np.empty(tensor.num_elements, np.float32)
        at = 0
        for piece in decoded_chunks(tensor):
            values[at : at + len(piece)] = piece
            at += len(piece)
        return values.reshape(tensor.shape)

    def rows(self, name: str, at: NDArray[np.intp]) -> Values:
        """Some rows of a matrix, without ever holding all of it."""
        found = np.empty((len(at), self.tensors[name].shape[1]), np.float32)
        for start, block in self.row_blocks(name):
            inside = (at >= start) & (at < start + len(block))
            found[inside] = block[at[inside] - start]
        return found

    def row_blocks(self, name: str) -> Iterator[tuple[int, Values]]:
        """A matrix in blocks of whole rows, each with the number of its first row."""
        tensor = self.tensors[name]
        width = tensor.shape[1]
        start, rest = 0, np.empty(0, np.float32)
        for piece in decoded_chunks(tensor):
            values = np.concatenate((rest, piece)) if len(rest) else piece
            num_rows = len(values) // width
            if num_rows:
                yield start, values[: num_rows * width].reshape(num_rows, width)
            start, rest = start + num_rows, values[num_rows * width :]


def decoded_chunks(tensor: SourceTensor) -> Iterator[Values]:
    """A tensor's values, flat, piece by piece."""
    left = tensor.num_elements
    decode = None
    for chunk in tensor.chunks():
        data = memoryview(chunk)
        if decode is None:
            prefix = prefix_bytes(tensor.dtype)
            decode = _decoder(tensor.dtype, data[:prefix])
            data = data[prefix:]
        # The last block of a format may hold more elements than the tensor has.
        values = decode(data)[:left]
        left -= len(values)
        yield values


def equal_pieces(tensor: SourceTensor, num_elements: int) -> Iterator[Values]:
    """A tensor's values, flat, in pieces of exactly so many elements; the last may be shorter."""
    waiting, num_waiting = list[Values](), 0
    for values in decoded_chunks(tensor):
        waiting.append(values)
        num_waiting += len(values)
        if num_waiting < num_elements:
            continue
        joined = np.concatenate(waiting) if len(waiting) > 1 else values
        whole = num_waiting // num_elements * num_elements
        for at in range(0, whole, num_elements):
            yield joined[at : at + num_elements]
        waiting, num_waiting = [joined[whole:]], num_waiting - whole
    if num_waiting:
        yield np.concatenate(waiting)


def _decoder(dtype: str, prefix: memoryview) -> Callable[[memoryview], Values]:
    if dtype == "f32":
        return lambda data: np.frombuffer(data, "<f4")
    if dtype == "f16":
        return lambda data: np.frombuffer(data, "<f2").astype(np.float32)
    if dtype == "bf16":
        # The upper half of an fp32: widening it is a shift.
        return lambda data: (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return dequantizer(dtype, prefix)


def stored_bytes(tensor: SourceTensor) -> int:
    """Bytes of a tensor in its number format."""
    if tensor.dtype in DTYPES:
        return DTYPES[tensor.dtype].size_bytes(tensor.shape)
    elements, block_bytes = block_sizes(tensor.dtype)
    return tensor.num_elements // elements * block_bytes


def chunk_bytes(dtype: str) -> int:
    """The size of a chunk of whole elements or blocks."""
    block_bytes = DTYPES[dtype].block_bytes if dtype in DTYPES else block_sizes(dtype)[1]
    return CHUNK_BYTES // block_bytes * block_bytes
