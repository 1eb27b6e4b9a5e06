"""Block-quantised formats by name, for tensors that are handled in pieces.

Blocks do not know of each other, so a tensor may be cut between any two of them. What the whole
tensor has in common stands before its first block, in a prefix; only q8 has one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from apr.quantization import apr_q4, apr_q8, q4_k, q6_k, q8_0
from apr.quantization.floats import Floats

READABLE = ("q8", "q4", "q4_k", "q6_k", "q8_0")
WRITABLE = ("q8", "q4", "q4_k", "q8_0")

_BLOCK_FORMATS = {"q4": apr_q4, "q4_k": q4_k, "q8_0": q8_0}
_SIZES = {
    name: (module.BLOCK_ELEMENTS, module.BLOCK_BYTES)
    for name, module in {**_BLOCK_FORMATS, "q8": apr_q8, "q6_k": q6_k}.items()
}


@dataclass(frozen=True)
class Quantizer:
    """How one tensor becomes bytes: the prefix once, then piece after piece.

    A piece is a flat float32 array whose length is a multiple of `block_elements`; the last one
    of a q4 tensor may have any. `error_bound` gives, for the same piece, how far each value read
    back may be from its original.
    """

    prefix: bytes
    block_elements: int
    quantize: Callable[[Floats], bytes]
    error_bound: Callable[[Floats], Floats]


def quantizer(name: str, *, max_abs: float) -> Quantizer:
    """The quantiser for a tensor whose largest magnitude is `max_abs`, which only q8 looks at.

    Raises ValueError for a name that is not writable.
    """
    if name == "q8":
        scale = apr_q8.scale_of(max_abs)
        return Quantizer(
            apr_q8.encode_prefix(scale),
            apr_q8.BLOCK_ELEMENTS,
            partial(apr_q8.quantize, scale=scale),
            partial(apr_q8.error_bound, scale=scale),
        )
    if name not in _BLOCK_FORMATS:
        raise ValueError(f"no quantiser for {name!r}; there is one for {', '.join(WRITABLE)}")
    module = _BLOCK_FORMATS[name]
    return Quantizer(b"", module.BLOCK_ELEMENTS, module.quantize, module.error_bound)


def block_sizes(name: str) -> tuple[int, int]:
    """Elements and bytes of one block."""
    return _SIZES[name]


def prefix_bytes(name: str) -> int:
    """Bytes before the first block of a tensor that is not empty."""
    return apr_q8.PREFIX_BYTES if name == "q8" else 0


def dequantizer(name: str, prefix: bytes | memoryview) -> Callable[[bytes | memoryview], Floats]:
    """What turns whole blocks of a tensor with this prefix into flat values.

    Raises ValueError for a name that is not readable.
    """
    if name == "q8":
        return partial(apr_q8.dequantize, scale=apr_q8.decode_prefix(prefix))
    if name == "q6_k":
        return q6_k.dequantize
    if name not in _BLOCK_FORMATS:
        raise ValueError(f"cannot read {name!r}, only {', '.join(READABLE)}")
    return _BLOCK_FORMATS[name].dequantize


def dequantize(name: str, data: bytes | memoryview, num_elements: int) -> Floats:
    """The first `num_elements` values of a whole tensor, prefix included, as a flat array.

    Raises ValueError if the bytes are not those of so many elements.
    """
    if num_elements == 0:
        return np.empty(0, np.float32)
    view = memoryview(data)
    start = prefix_bytes(name)
    values = dequantizer(name, view[:start])(view[start:])
    missing = values.size - num_elements
    if not 0 <= missing < block_sizes(name)[0]:
        raise ValueError(f"{values.size} values where {num_elements} elements were expected")
    return values[:num_elements]
