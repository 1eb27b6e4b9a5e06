"""Whether the numbers in a model's tensors are numbers a model can have.

A damaged download, a failed cast and a diverged run leave NaN, infinity or zeros behind, and a
training run started from them reports a loss all the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from apr.convert.source import Source, SourceTensor
from apr.errors import Refusal
from apr.progress import Progress, Report, silent


@dataclass(frozen=True)
class _Bits:
    """A float type as the integers that its bits are."""

    dtype: str
    without_sign: int
    infinity: int


_BITS = {
    "f32": _Bits("<u4", 0x7FFF_FFFF, 0x7F80_0000),
    "f16": _Bits("<u2", 0x7FFF, 0x7C00),
    "bf16": _Bits("<u2", 0x7FFF, 0x7F80),
}


@dataclass(frozen=True)
class Values:
    """What one tensor holds."""

    num_elements: int
    num_nan: int
    num_infinite: int
    num_nonzero: int


def check_values(source: Source, *, progress: Report = silent) -> int:
    """Read every float tensor of a source once; the number of tensors that were looked at.

    Quantised tensors are not: their bytes are no numbers by themselves. A bias may be all zeros, as
    a fresh model's is.

    Refuses: import.not-finite, import.all-zero.
    """
    tensors = [tensor for tensor in source.tensors.values() if tensor.dtype in _BITS]
    total, done = sum(tensor.num_elements for tensor in tensors), 0
    for tensor in tensors:
        _require_sound(tensor, read_values(tensor), source)
        done += tensor.num_elements
        progress(Progress("reading values", done, total, "values"))
    return len(tensors)


def read_values(tensor: SourceTensor) -> Values:
    """Count what is in one tensor of f32, f16 or bf16."""
    return _counted(tensor.chunks(), _BITS[tensor.dtype])


def _counted(chunks: Iterable[memoryview], bits: _Bits) -> Values:
    num_elements = num_nan = num_infinite = num_nonzero = 0
    for chunk in chunks:
        magnitudes = np.frombuffer(chunk, bits.dtype) & bits.without_sign
        num_elements += magnitudes.size
        num_nonzero += int(np.count_nonzero(magnitudes))
        if int(magnitudes.max(initial=0)) >= bits.infinity:
            num_nan += int(np.count_nonzero(magnitudes > bits.infinity))
            num_infinite += int(np.count_nonzero(magnitudes == bits.infinity))
    return Values(num_elements, num_nan, num_infinite, num_nonzero)


def _require_sound(tensor: SourceTensor, values: Values, source: Source) -> None:
    where = f"{source.where}, tensor {tensor.name!r}"
    if values.num_nan or values.num_infinite:
        raise Refusal(
            "import.not-finite",
            where,
            found=f"{values.num_nan} NaN and {values.num_infinite} infinite of "
            f"{values.num_elements} values",
            expected="finite numbers",
            fix="the file is damaged or the model's training failed; get it again",
        )
    if not values.num_nonzero and not tensor.name.endswith(".bias"):
        raise Refusal(
            "import.all-zero",
            where,
            found=f"{values.num_elements} zeros",
            expected="a tensor that was trained, or at least initialised",
            fix="the file is cut or was never filled; get it again",
        )
