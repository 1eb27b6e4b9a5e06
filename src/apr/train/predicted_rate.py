"""How fast a device should train a model: the roofline at assumed rates, or at measured ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from apr.architecture import CONVENTIONS, Architecture, Convention
from apr.train.device_rates import DeviceRates, shipped_rates
from apr.train.devices import COLUMNS, Device, Rates, device_reported_as
from apr.train.rate import Rate
from apr.train.roofline import ASSUMES, us_per_token, work_per_token


@dataclass(frozen=True)
class Ceiling:
    """What no run can exceed, in FLOP/s of matrix products; None where it is unknown."""

    flops_per_s: float | None
    source: str


@dataclass(frozen=True)
class PredictedRate:
    """One roofline, in up to three columns."""

    device: str
    architecture: Architecture
    sequence_length: int
    micro_batch_tokens: int
    columns: Mapping[str, Rates]
    """`measured` alone where nothing is assumed any more."""
    words: Mapping[str, str]
    """Of each rate: assumed, measured, or measured at another shape."""
    us_per_token: Mapping[str, Mapping[str, float]]
    """By column, then by part."""
    sheet: Ceiling
    measured_ceiling: Ceiling
    source: str

    @property
    def central(self) -> str:
        """The column to plan with."""
        return "expected" if "expected" in self.columns else "measured"

    def tokens_per_s(self, column: str) -> float:
        """The inverse of the sum of all parts."""
        return 1e6 / sum(self.us_per_token[column].values())

    def share_of(
        self, ceiling: Ceiling, tokens_per_s: float, convention: Convention
    ) -> float | None:
        """Model FLOPs utilisation, attention counted whole or by its causal half."""
        if ceiling.flops_per_s is None:
            return None
        per_token = self.architecture.training_flops_per_token(
            self.sequence_length, convention=convention
        )
        return per_token * tokens_per_s / ceiling.flops_per_s

    def most_tokens_per_s(self) -> float | None:
        """What nothing exceeds: all products at the measured ceiling, or else the sheet's."""
        ceiling = self._limit()
        per_token = self.architecture.training_flops_per_token(
            self.sequence_length, convention="causal"
        )
        return None if ceiling.flops_per_s is None else ceiling.flops_per_s / per_token

    def _limit(self) -> Ceiling:
        return self.measured_ceiling if self.measured_ceiling.flops_per_s else self.sheet

    def rate(self) -> Rate:
        """What hours are computed with."""
        known = sorted(set(self.words.values()))
        speeds = [self.tokens_per_s(column) for column in self.columns]
        spread = f", {min(speeds):.0f} to {max(speeds):.0f}" if len(speeds) > 1 else ""
        return Rate(
            self.tokens_per_s(self.central),
            f"the roofline of {self.device} ({' and '.join(known)} rates{spread}); validations "
            "and checkpoints come on top",
        )

    def as_facts(self, against: Rate) -> dict[str, Any]:
        """The whole table for JSON, and what was measured or stated beside it."""
        return {
            "device": self.device,
            "sequence_length": self.sequence_length,
            "micro_batch_tokens": self.micro_batch_tokens,
            "source": self.source,
            "assumes": ASSUMES,
            "rates": {
                name: {column: getattr(rates, name) for column, rates in self.columns.items()}
                | {"word": self.words[name]}
                for name in Rates._fields
            },
            "us_per_token": {column: dict(parts) for column, parts in self.us_per_token.items()},
            "tokens_per_s": {column: self.tokens_per_s(column) for column in self.columns},
            "mfu": self._shares(self.sheet),
            "mfu_of_measured_ceiling": self._shares(self.measured_ceiling),
            "against": self.compared(against) if against.tokens_per_s else None,
        }

    def compared(self, measured: Rate) -> dict[str, Any]:
        """A speed beside the prediction; one above what the matrix products allow is no speed."""
        speed = measured.tokens_per_s
        assert speed is not None
        most, ceiling = self.most_tokens_per_s(), self._limit()
        is_possible = most is None or speed <= most
        return {
            "tokens_per_s": speed,
            "source": measured.source,
            "share_of_predicted": speed / self.tokens_per_s(self.central) if is_possible else None,
            "share_of_predicted_reason": None
            if is_possible
            else f"impossible: nothing exceeds {most:,.0f} tokens/s, {ceiling.source}",
        }

    def _shares(self, ceiling: Ceiling) -> dict[str, Any]:
        return {
            "ceiling_flops_per_s": ceiling.flops_per_s,
            "ceiling_source": ceiling.source,
            **{
                convention: {
                    column: self.share_of(ceiling, self.tokens_per_s(column), convention)
                    for column in self.columns
                }
                for convention in CONVENTIONS
            },
        }


def predict_rate(
    architecture: Architecture,
    *,
    device: Device | None,
    measured: DeviceRates | None,
    sequence_length: int,
    micro_batch_tokens: int,
    batch_tokens: int,
) -> PredictedRate | str:
    """The roofline of a device; why there is none, where a rate is neither measured nor assumed.

    `device` is None for one that has no sheet, as a CPU; then every rate must have been measured.
    """
    assumed: Mapping[str, Rates | None] = device.assumed if device else dict.fromkeys(COLUMNS)
    columns: dict[str, Rates] = {}
    for column in COLUMNS:
        rates = _known(assumed[column], measured)
        if unknown := [name for name in Rates._fields if name not in rates]:
            return f"no rate was measured for {', '.join(unknown)}, and none is assumed"
        columns[column] = Rates(**rates)
    words = {
        name: measured.word(name, architecture, sequence_length=sequence_length)
        if measured and measured.measured(name)
        else "assumed"
        for name in Rates._fields
    }
    if "assumed" not in words.values():
        columns = {"measured": columns["expected"]}
    work = work_per_token(
        architecture,
        sequence_length=sequence_length,
        micro_batch_tokens=micro_batch_tokens,
        batch_tokens=batch_tokens,
    )
    return PredictedRate(
        device=device.name if device else "cpu",
        architecture=architecture,
        sequence_length=sequence_length,
        micro_batch_tokens=micro_batch_tokens,
        columns=columns,
        words=words,
        us_per_token={column: us_per_token(work, rates) for column, rates in columns.items()},
        sheet=Ceiling(device.sheet_flops_per_s, f"the sheet of {device.name}")
        if device
        else Ceiling(None, "a CPU has no sheet"),
        measured_ceiling=_ceiling(device, measured),
        source=_source(device, measured),
    )


def predicted_for_run(
    reported_name: str,
    architecture: Architecture,
    *,
    precision: str,
    sequence_length: int,
    micro_batch_tokens: int,
    batch_tokens: int,
) -> dict[str, Any] | None:
    """What a run on the device that torch calls so should reach; None where nothing is known.

    It goes into the record before step 1, so that the speed that follows is held against it.
    """
    device = device_reported_as(reported_name)
    if device is None or precision != "bf16":
        return None
    found = predict_rate(
        architecture,
        device=device,
        measured=shipped_rates(device),
        sequence_length=sequence_length,
        micro_batch_tokens=micro_batch_tokens,
        batch_tokens=batch_tokens,
    )
    if isinstance(found, str):
        return None
    speeds = [found.tokens_per_s(column) for column in found.columns]
    return {
        "tokens_per_s": found.tokens_per_s(found.central),
        "tokens_per_s_lowest": min(speeds),
        "tokens_per_s_highest": max(speeds),
        "tokens_per_s_ceiling": found.most_tokens_per_s(),
        "device": device.name,
        "source": found.rate().source,
    }


def _known(assumed: Rates | None, measured: DeviceRates | None) -> dict[str, float]:
    """Every assumed rate, and the measured one in its place where there is one."""
    known = assumed._asdict() if assumed else {}
    replaced = {name: measured.measured(name) for name in Rates._fields} if measured else {}
    return known | {name: rate for name, rate in replaced.items() if rate is not None}


def _ceiling(device: Device | None, measured: DeviceRates | None) -> Ceiling:
    if measured:
        source = f"the best matrix product on {measured.device_name}, {measured.measured_at}"
        return Ceiling(measured.matmul_ceiling_flops_per_s, source)
    if device:
        return Ceiling(device.ceiling_flops_per_s, device.ceiling_source)
    return Ceiling(None, "no matrix product was measured")


def _source(device: Device | None, measured: DeviceRates | None) -> str:
    told = [] if device is None else [device.assumed_source]
    if measured:
        versions = ", ".join(f"{name} {version}" for name, version in measured.software.items())
        told = [f"measured on {measured.device_name}, {measured.measured_at}, {versions}", *told]
    return "; else ".join(told)
