"""A rate as a share of what the device can do, and whether it can be true at all.

Two conventions are in use and are the main reason why published figures cannot be compared:
*conventional* counts attention as if every position saw every other, *causal* the half that is
computed. Both are given, of a measured ceiling, and of the sheet where the device has one.
"""

from dataclasses import asdict, dataclass
from typing import Any

from apr.architecture import CONVENTIONS, Architecture, Convention
from apr.bench.ceiling import Ceiling
from apr.bench.peaks import published_peak


@dataclass(frozen=True)
class Utilization:
    """Shares of the ceiling and of the sheet; `invalid` says why the rate cannot be true."""

    conventional: float | None
    causal: float | None
    conventional_of_sheet: float | None
    causal_of_sheet: float | None
    reason: str | None
    """Why there is no share of a ceiling."""
    sheet_reason: str
    """Where the sheet's figure is from, or why there is none."""
    ceiling: Ceiling
    sheet_flops_per_s: float | None
    invalid: tuple[str, ...]

    @property
    def is_valid(self) -> bool:
        """Whether nothing contradicts the rate."""
        return not self.invalid

    def as_dict(self) -> dict[str, Any]:
        """For a record."""
        return asdict(self) | {"valid": self.is_valid, "invalid": list(self.invalid)}


def utilization(
    tokens_per_s: float,
    architecture: Architecture,
    *,
    sequence_length: int,
    num_parameters: int,
    ceiling: Ceiling,
) -> Utilization:
    """What a rate of training tokens is of the device's ceilings, and what contradicts it.

    `num_parameters` are counted from the tensors that were trained. A rate above a ceiling, a
    ceiling above the sheet, and FLOPs counted for a model of another size are invalid.
    """
    rates: dict[Convention, float] = {
        convention: tokens_per_s
        * architecture.training_flops_per_token(sequence_length, convention=convention)
        for convention in CONVENTIONS
    }
    sheet, sheet_reason = published_peak(ceiling.device_name, ceiling.precision)
    measured = ceiling.flops_per_s
    return Utilization(
        conventional=measured and rates["conventional"] / measured,
        causal=measured and rates["causal"] / measured,
        conventional_of_sheet=sheet and rates["conventional"] / sheet,
        causal_of_sheet=sheet and rates["causal"] / sheet,
        reason=None if measured else f"no MFU: {ceiling.source}",
        sheet_reason=sheet_reason,
        ceiling=ceiling,
        sheet_flops_per_s=sheet,
        invalid=tuple(
            _contradictions(rates, measured, sheet, num_parameters, architecture=architecture)
        ),
    )


def _contradictions(
    rates: dict[Convention, float],
    measured: float | None,
    sheet: float | None,
    num_parameters: int,
    *,
    architecture: Architecture,
) -> list[str]:
    found: list[str] = []
    for what, limit in (("the measured ceiling", measured), ("the sheet", sheet)):
        above = [
            f"{convention} {rate:.4g}"
            for convention, rate in rates.items()
            if limit and rate > limit
        ]
        if above:
            found.append(f"{' and '.join(above)} FLOP/s, above {what} of {limit:.4g}")
    if measured and sheet and measured > sheet:
        found.append(f"a measured ceiling of {measured:.4g} FLOP/s, above the sheet's {sheet:.4g}")
    if num_parameters != architecture.num_parameters:
        found.append(
            f"{num_parameters} parameters were trained, and FLOPs counted for a model of "
            f"{architecture.num_parameters}"
        )
    return found
