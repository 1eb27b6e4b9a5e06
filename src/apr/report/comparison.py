"""Runs side by side: ranked where they read one held-out set, with what the difference is worth.

A difference below two of its standard errors is told as none: another draw of held-out text might
turn it round.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apr.errors import Refusal, UsageRefusal
from apr.progress import Report, silent
from apr.report.compared_run import ComparedRun, read_compared_run
from apr.report.differences import FieldDifference, factors_between, field_differences
from apr.report.record import Record

ENOUGH_ERRORS = 2.0
"""Below this many standard errors a difference is told as none."""
_FIX_SETS = "compare runs with the same held-out shards and --seq-length"


@dataclass(frozen=True)
class Difference:
    """How far a run's loss lies above the lowest one, and how sure that is.

    Paired: from the differences row by row, so that what is hard for both cancels. `reason` says
    why not, or why there is no standard error.
    """

    nats: float
    standard_error_nats: float | None
    is_paired: bool
    reason: str | None

    @property
    def standard_errors(self) -> float | None:
        """The difference in units of its standard error."""
        return self.nats / self.standard_error_nats if self.standard_error_nats else None

    @property
    def is_distinguishable(self) -> bool:
        """Whether it is at least two standard errors; never without a standard error."""
        errors = self.standard_errors
        return errors is not None and errors >= ENOUGH_ERRORS


@dataclass(frozen=True)
class Standing:
    """A run's place: `rank` is None where it is not ranked, `difference` for the lowest too."""

    run: ComparedRun
    number: int
    rank: int | None
    difference: Difference | None


@dataclass(frozen=True)
class Comparison:
    """All runs, the lowest loss first and the unranked last, and in what they differ."""

    standings: tuple[Standing, ...]
    differences: tuple[FieldDifference, ...]
    """`values` are in the order of `standings`."""
    cautions: tuple[str, ...]

    @property
    def lowest(self) -> Standing:
        """The run with the lowest loss."""
        return self.standings[0]

    def as_dict(self) -> dict[str, Any]:
        """The object that `apr compare --json` prints."""
        val = self.lowest.run.record.child("val")
        return {
            "set_sha256": self.lowest.run.set_sha256,
            "num_tokens": _count(val, "num_tokens"),
            "runs": [_run_dict(standing) for standing in self.standings],
            "differences": [
                {
                    "field": each.field,
                    "kind": each.kind,
                    "is_factor": each.is_factor,
                    "values": list(each.values),
                }
                for each in self.differences
            ],
            "cautions": list(self.cautions),
        }


def compare_runs(run_dirs: Sequence[Path], *, progress: Report = silent) -> Comparison:
    """Rank runs by their held-out loss, each difference in units of its standard error.

    Refuses: compare.too-few, compare.same-run, compare.sets-differ, compare.not-measured, and
    what reading a run refuses: run.not-found, run.record-damaged, run.rows-damaged,
    run.steps-damaged, safetensors.*, files.io-failed.
    """
    if len(run_dirs) < 2:
        raise UsageRefusal(
            "compare.too-few",
            ", ".join(map(str, run_dirs)) or "RUNS",
            found=f"{len(run_dirs)} runs",
            expected="at least two",
            fix="name two run directories: apr compare runs/a runs/b",
        )
    runs = [read_compared_run(run_dir, progress=progress) for run_dir in run_dirs]
    _require_apart(runs)
    _require_one_set(runs)
    ranked = [run for run in runs if run.loss_nats is not None]
    if len(ranked) < 2:
        raise Refusal(
            "compare.not-measured",
            ", ".join(run.name for run in runs if run.loss_nats is None),
            found="; ".join(f"{run.name}: {run.reason}" for run in runs if run.reason),
            expected="at least two runs that ended with a held-out loss",
            fix="finish them (apr pretrain --resume RUN), or compare others",
        )
    ranked.sort(key=lambda run: run.loss_nats or 0.0)
    ordered = ranked + [run for run in runs if run.loss_nats is None]
    standings = tuple(
        Standing(
            run,
            number=place,
            rank=place if run.loss_nats is not None else None,
            difference=_difference(ranked[0], run) if place > 1 and run.loss_nats else None,
        )
        for place, run in enumerate(ordered, start=1)
    )
    differences = tuple(field_differences([run.record for run in ordered]))
    return Comparison(standings, differences, tuple(_cautions(standings, differences)))


def _require_apart(runs: Sequence[ComparedRun]) -> None:
    seen: dict[str, ComparedRun] = {}
    for run in runs:
        # A copied directory has the same record; a directory named twice has it too.
        before = seen.setdefault(run.record_sha256, run)
        if before is not run:
            raise UsageRefusal(
                "compare.same-run",
                run.name,
                found=f"the record of {before.name}",
                expected="another run",
                fix="name each run once",
            )


def _require_one_set(runs: Sequence[ComparedRun]) -> None:
    sets = {run.set_sha256 for run in runs}
    if len(sets) == 1 and None not in sets:
        return
    told = [f"{run.name}: {(run.set_sha256 or 'no hash on record')[:16]}" for run in runs]
    raise Refusal(
        "compare.sets-differ",
        ", ".join(run.name for run in runs),
        found=", ".join(told),
        expected="one held-out set, by hash; losses on two sets are two different measurements",
        fix=_FIX_SETS,
    )


def _difference(lowest: ComparedRun, run: ComparedRun) -> Difference:
    assert lowest.loss_nats is not None
    assert run.loss_nats is not None
    nats = run.loss_nats - lowest.loss_nats
    reason = run.rows_reason or lowest.rows_reason
    if run.rows is not None and lowest.rows is not None:
        if run.rows.is_aligned_with(lowest.rows):
            return _paired(nats, run.rows.minus(lowest.rows).standard_error_nats)
        reason = "their rows hold different numbers of tokens"
    errors = (run.standard_error_nats, lowest.standard_error_nats)
    if errors[0] is None or errors[1] is None:
        return Difference(nats, None, False, f"{reason}; no standard error is on record")
    return Difference(nats, math.hypot(errors[0], errors[1]), False, reason)


def _paired(nats: float, error_nats: float | None) -> Difference:
    reason = None if error_nats else "the rows differ alike, so there is no spread to judge by"
    return Difference(nats, error_nats, True, reason)


def _cautions(standings: Sequence[Standing], differences: Sequence[FieldDifference]) -> list[str]:
    lowest = standings[0]
    told: list[str] = []
    for standing in standings[1:]:
        if standing.difference is None:
            continue
        pair = f"{standing.run.name} and {lowest.run.name}"
        factors = [
            factor.field
            for factor in factors_between(differences, lowest.number - 1, standing.number - 1)
        ]
        told += _factor_words(pair, factors)
        if not standing.difference.is_paired:
            told.append(
                f"{pair} are compared by their means alone, not row by row: "
                f"{standing.difference.reason}."
            )
    if any(each.field == "environment.device_name" for each in differences):
        told.append("The runs were made on different devices: their tokens/s are not comparable.")
    told.append(
        "The standard error is that of the held-out text. How far another seed would move a loss "
        "is not in it; three seeds of each show that."
    )
    return told


def _factor_words(pair: str, factors: Sequence[str]) -> list[str]:
    if not factors:
        return [f"{pair} have the same options and inputs: what they differ in is chance."]
    if list(factors) == ["seed"]:
        return [f"{pair} differ in the seed alone: their difference is what chance does."]
    if len(factors) == 1:
        return []
    listed = ", ".join(factors)
    told = f"{pair} differ in {len(factors)} things at once ({listed})"
    return [f"{told}: their difference cannot be put down to one of them."]


def _run_dict(standing: Standing) -> dict[str, Any]:
    run, difference = standing.run, standing.difference
    val, throughput = run.record.child("val"), run.record.child("throughput")
    known = run.loss_nats is not None
    return {
        "path": run.name,
        "rank": standing.rank,
        "rank_reason": run.reason,
        "outcome": run.record.text("outcome"),
        "best_loss_nats": run.loss_nats,
        "standard_error_nats": run.standard_error_nats,
        "bits_per_byte": val.number("bits_per_byte") if known else None,
        "best_step": _count(val, "best_step") if known else None,
        "difference_nats": difference.nats if difference else None,
        "difference_standard_error_nats": difference.standard_error_nats if difference else None,
        "difference_standard_errors": difference.standard_errors if difference else None,
        "is_distinguishable": difference.is_distinguishable if difference else None,
        "is_paired": difference.is_paired if difference else None,
        "difference_reason": difference.reason if difference else run.reason or "the lowest loss",
        "tokens_seen": _count(run.record, "tokens_seen"),
        "tokens_per_s": throughput.number("tokens_per_s"),
        "predicted_tokens_per_s": run.record.child("predicted").number("tokens_per_s"),
        "num_parameters": _count(run.record.child("architecture"), "num_parameters"),
        "num_steps": run.history.num_steps,
        "run_record_sha256": run.record_sha256,
    }


def _count(record: Record, name: str) -> int | float | None:
    """A count as JSON spells one, without a fraction."""
    value = record.number(name)
    return int(value) if value is not None and value.is_integer() else value
