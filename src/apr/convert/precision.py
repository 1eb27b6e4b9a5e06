"""Which number format each tensor of a conversion gets, and the change into it, piece by piece.

Without `quantize` a tensor keeps its format, to the byte. What a container has no format for
(GGUF's Q8_0) becomes f32, which holds its values exactly.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Literal, get_args

import numpy as np

from apr.container.layout import DTYPES, WRITABLE_DTYPES
from apr.convert.source import SourceTensor
from apr.convert.weights import Values, decoded_chunks, equal_pieces
from apr.errors import Refusal
from apr.quantization.formats import quantizer

Quantization = Literal["fp16", "bf16", "int8", "int4", "q4k"]
QUANTIZATIONS = get_args(Quantization)

FLOATS = ("f32", "f16", "bf16")
_FORMATS = {"fp16": "f16", "bf16": "bf16", "int8": "q8", "int4": "q4", "q4k": "q4_k"}
# What is looked up or ends the model stays a float: it is most sensitive, and a tied one is both.
_ENDS = ("model.embed_tokens.weight", "lm_head.weight")
PIECE_ELEMENTS = 1 << 20
"""Values that are changed at a time; the blocks of every format divide it."""


def chosen_formats(
    tensors: Mapping[str, SourceTensor], quantize: Quantization | None
) -> dict[str, str]:
    """The format of every tensor in a container.

    `fp16` and `bf16` change every tensor. `int8`, `int4` and `q4k` change the matrices inside the
    layers; norms, biases, embedding and head keep their format. A row that 256 does not divide has
    no Q4_K blocks and becomes int8.
    """
    return {name: _format(tensor, quantize) for name, tensor in tensors.items()}


def _format(tensor: SourceTensor, quantize: Quantization | None) -> str:
    kept = tensor.dtype if tensor.dtype in WRITABLE_DTYPES else "f32"
    if quantize is None:
        return kept
    wanted = _FORMATS[quantize]
    if wanted in FLOATS:
        return wanted
    if len(tensor.shape) != 2 or tensor.name in _ENDS:
        return kept
    if wanted == "q4_k" and tensor.shape[1] % DTYPES["q4_k"].block_elements:
        return "q8"
    return wanted


def is_exact(before: str, after: str) -> bool:
    """Whether every value of one format is a value of the other."""
    return before == after or after == "f32"


def converted(tensor: SourceTensor, dtype: str) -> SourceTensor:
    """The same tensor in another format; the very same bytes where it is in that format already.

    Its chunks refuse: convert.overflow, convert.not-finite.
    """
    if tensor.dtype == dtype:
        return tensor
    chunks = partial(_as_floats if dtype in FLOATS else _quantized, tensor, dtype)
    return SourceTensor(tensor.name, dtype, tensor.shape, chunks)


def _as_floats(tensor: SourceTensor, dtype: str) -> Iterator[memoryview]:
    change = _to_float(dtype)
    for values in decoded_chunks(tensor):
        yield change(values, tensor.name)


def _to_float(dtype: str) -> Callable[[Values, str], memoryview]:
    return {"f32": _to_f32, "f16": _to_f16, "bf16": _to_bf16}[dtype]


def _to_f32(values: Values, name: str) -> memoryview:
    return np.ascontiguousarray(values, "<f4").data.cast("B")


def _to_f16(values: Values, name: str) -> memoryview:
    with np.errstate(over="ignore"):
        halves = values.astype("<f2")
    _require_finite(halves, values, name, "f16", "65504")
    return halves.data.cast("B")


def _to_bf16(values: Values, name: str) -> memoryview:
    bits = values.view(np.uint32)
    # Round to the nearest, ties to even: add half, and one more where the last kept bit is odd.
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    is_infinite = (rounded & 0x7FFF) >= 0x7F80
    _require_finite(np.where(is_infinite, np.inf, 0.0), values, name, "bf16", "3.39e38")
    return rounded.data.cast("B")


def _quantized(tensor: SourceTensor, dtype: str) -> Iterator[memoryview]:
    largest = max((float(np.abs(v).max(initial=0.0)) for v in decoded_chunks(tensor)), default=0.0)
    _require_finite(np.float32(largest), np.float32(largest), tensor.name, dtype, "any")
    try:
        make = quantizer(dtype, max_abs=largest)
        if make.prefix and tensor.num_elements:
            yield memoryview(make.prefix)
        for piece in equal_pieces(tensor, PIECE_ELEMENTS):
            yield memoryview(make.quantize(piece))
    except OverflowError as err:
        raise _overflow(tensor.name, str(err), dtype) from err


def _require_finite(
    after: np.ndarray | np.float32, before: Values | np.float32, name: str, dtype: str, largest: str
) -> None:
    if np.isfinite(after).all():
        return
    if np.isfinite(before).all():
        magnitude = float(np.abs(before).max())
        raise _overflow(
            name, f"a value of magnitude {magnitude:g}; {largest} is the largest", dtype
        )
    raise Refusal(
        "convert.not-finite",
        f"tensor {name!r}",
        found="a value that is NaN or infinite",
        expected="finite weights",
        fix="get the checkpoint again, or an earlier one",
    )


def _overflow(name: str, found: str, dtype: str) -> Refusal:
    return Refusal(
        "convert.overflow",
        f"tensor {name!r}",
        found=found,
        expected=f"values that {dtype} can hold",
        fix="choose bf16, or leave --quantize out",
    )
