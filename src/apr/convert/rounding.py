"""What a change of number format may do to a value, and nothing more.

A proof of two forward passes cannot tell a rounded model from a wrong one. So every rounded tensor
is first compared with its source, value by value, within the bound of its format; only then does
the reference compute with the rounded values, and what is left must agree as without rounding.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from apr.convert.precision import FLOATS, PIECE_ELEMENTS, is_exact
from apr.convert.source import SourceTensor
from apr.convert.weights import Values, decoded_chunks, equal_pieces
from apr.errors import Refusal
from apr.progress import Progress, Report, silent
from apr.quantization.formats import quantizer

# Half a unit in the last place, relative, or half the smallest subnormal where that is more.
_FLOAT_STEPS = {"f16": (2.0**-11, 2.0**-25), "bf16": (2.0**-8, 2.0**-134)}


@dataclass(frozen=True)
class Rounding:
    """What became of the values of one tensor."""

    name: str
    before: str
    after: str
    relative_rms_error: float
    """Root of the summed squared errors over the summed squares."""


def check_rounding(
    before: Mapping[str, SourceTensor],
    after: Mapping[str, SourceTensor],
    *,
    progress: Report = silent,
) -> list[Rounding]:
    """Compare every tensor that was rounded with what it was made from; one record each.

    Refuses: convert.rounding, for a value further from its original than its format explains.
    """
    names = [n for n, tensor in after.items() if not is_exact(before[n].dtype, tensor.dtype)]
    found: list[Rounding] = []
    for number, name in enumerate(names):
        found.append(_rounding(before[name], after[name]))
        progress(Progress("comparing rounded tensors", number + 1, len(names), "tensors"))
    return found


def _rounding(before: SourceTensor, after: SourceTensor) -> Rounding:
    bound_of = _bound(before, after.dtype)
    squared_error = squared = 0.0
    num_compared = 0
    sides = zip(
        equal_pieces(before, PIECE_ELEMENTS), equal_pieces(after, PIECE_ELEMENTS), strict=False
    )
    for original, rounded in sides:
        if len(original) != len(rounded):
            break
        error = np.abs(original - rounded)
        bound = bound_of(original)
        num_compared += len(error)
        # Written so that a NaN on either side is an error too.
        if not (error <= bound).all():
            worst = int(np.argmax(~(error <= bound)))
            raise Refusal(
                "convert.rounding",
                f"tensor {before.name!r}, {before.dtype} to {after.dtype}",
                found=f"{rounded[worst]:g} for {original[worst]:g}",
                expected=f"a value within {bound[worst]:.3g} of it",
                fix="nothing was written; report this with the refusal",
            )
        squared_error += float(np.square(error, dtype=np.float64).sum())
        squared += float(np.square(original, dtype=np.float64).sum())
    if num_compared != before.num_elements or before.shape != after.shape:
        raise Refusal(
            "convert.rounding",
            f"tensor {before.name!r}",
            found=f"{num_compared} values of shape {list(after.shape)}",
            expected=f"{before.num_elements} of shape {list(before.shape)}",
            fix="nothing was written; report this with the refusal",
        )
    relative = (squared_error / squared) ** 0.5 if squared else 0.0
    return Rounding(before.name, before.dtype, after.dtype, relative)


def _bound(before: SourceTensor, dtype: str) -> Callable[[Values], Values]:
    if dtype in FLOATS:
        relative, absolute = _FLOAT_STEPS[dtype]
        return lambda values: np.maximum(
            np.abs(values) * np.float32(relative), np.float32(absolute)
        )
    largest = max((float(np.abs(v).max(initial=0.0)) for v in decoded_chunks(before)), default=0.0)
    return quantizer(dtype, max_abs=largest).error_bound
