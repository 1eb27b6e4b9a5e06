"""The order of the query and key rows, which GGUF's llama family keeps in its own way.

A rotary embedding turns pairs of elements of a head. Hugging Face pairs row i of a head with row
i + E/2 (halves); llama.cpp's llama pairs row 2i with row 2i + 1 (adjacent), and its converter
moves the rows accordingly. Qwen's families are halves in both. A row is whole blocks of any data
type, so rows move as bytes.

Source: `LlamaModel.permute` in llama.cpp's convert_hf_to_gguf.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from math import prod

import numpy as np

from apr.convert.gguf.layout import BY_DTYPE
from apr.convert.source import CHUNK_BYTES, SourceTensor

TURNED = ("self_attn.q_proj.weight", "self_attn.k_proj.weight")
"""Ends of the names of the tensors whose rows are moved."""


def is_turned(name: str) -> bool:
    """Whether rotary embeddings turn what this tensor's rows compute."""
    return name.endswith(TURNED)


def to_adjacent(tensor: SourceTensor, *, head_dim: int) -> SourceTensor:
    """The tensor with the rows of each head moved from halves to adjacent pairs."""
    return _moved(tensor, pairs_before=(2, head_dim // 2), head_dim=head_dim)


def to_halves(tensor: SourceTensor, *, head_dim: int) -> SourceTensor:
    """The tensor with the rows of each head moved from adjacent pairs to halves."""
    return _moved(tensor, pairs_before=(head_dim // 2, 2), head_dim=head_dim)


def _moved(tensor: SourceTensor, *, pairs_before: tuple[int, int], head_dim: int) -> SourceTensor:
    assert prod(tensor.shape[:1]) % head_dim == 0
    return replace(tensor, chunks=partial(_moved_chunks, tensor, pairs_before, head_dim))


def _moved_chunks(
    tensor: SourceTensor, pairs_before: tuple[int, int], head_dim: int
) -> Iterator[memoryview]:
    row_bytes = BY_DTYPE[tensor.dtype].size_bytes(tensor.shape[1:])
    head_bytes = head_dim * row_bytes
    step = head_bytes * max(1, CHUNK_BYTES // head_bytes)
    for heads in _regrouped(tensor.chunks(), step):
        rows = np.frombuffer(heads, dtype=np.uint8).reshape(-1, *pairs_before, row_bytes)
        yield np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(-1).data


def _regrouped(chunks: Iterable[memoryview], size_bytes: int) -> Iterator[bytearray]:
    """The same bytes in pieces of `size_bytes`; only the last may be shorter."""
    piece = bytearray()
    for chunk in chunks:
        flat = chunk.cast("B")
        while flat:
            taken = flat[: size_bytes - len(piece)]
            piece += taken
            flat = flat[len(taken) :]
            if len(piece) == size_bytes:
                yield piece
                piece = bytearray()
    if piece:
        yield piece
