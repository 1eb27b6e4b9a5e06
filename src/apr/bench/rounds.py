"""What several rounds of several sides come to: rates, ratios round by round, and what is invalid.

Hosts drift by a tenth within an hour, and the ratio of neighbours in time does not: it is taken in
every round, and the median is quoted.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from apr.architecture import CONVENTIONS
from apr.bench.reference import Workload
from apr.bench.side import Side
from apr.errors import Refusal

APR = "apr"
STEPS_PER_CHECKPOINT = 200
Round = Mapping[str, Side | Refusal]


def summarize(work: Workload, rounds: Sequence[Round]) -> dict[str, Any]:
    """Everything a record of a bench of training holds."""
    shape, length = work.architecture, work.config.seq_length
    by_side = {name: _with_best_ceiling([each[name] for each in rounds]) for name in rounds[0]}
    sides = {name: _side_facts(work, measured) for name, measured in by_side.items()}
    ours = by_side[APR]
    first = ours[0]
    assert isinstance(first, Side), "apr's own side was measured, or nothing is summarized"
    return {
        "model": asdict(shape) | {"num_parameters": first.num_parameters},
        "batch_size": work.config.batch_size,
        "sequence_length": length,
        "grad_accum": work.config.grad_accum,
        "flops_per_token": {
            convention: shape.training_flops_per_token(length, convention=convention)
            for convention in CONVENTIONS
        },
        "device_name": first.ceiling.device_name,
        "sides": sides,
        "ratios": {
            name: _ratio(by_side[name], ours, [sides[name], sides[APR]])
            for name in sides
            if name != APR
        },
        "valid": all(side["valid"] for side in sides.values()),
        **_parts_facts(work, first),
    }


def _with_best_ceiling(measured: Sequence[Side | Refusal]) -> list[Side | Refusal]:
    """A ceiling is the most that was seen: another program may have cut a round's own short."""
    known = [each.ceiling for each in measured if isinstance(each, Side)]
    best = max(known, key=lambda ceiling: ceiling.flops_per_s or 0.0, default=None)
    return [
        replace(each, ceiling=best) if isinstance(each, Side) and best else each
        for each in measured
    ]


def _side_facts(work: Workload, measured: Sequence[Side | Refusal]) -> dict[str, Any]:
    for each in measured:
        if isinstance(each, Refusal):
            return {
                "failed": each.as_dict(),
                "valid": False,
                "invalid": [f"{each.id}: {each.found}"],
            }
    sides = [each for each in measured if isinstance(each, Side)]
    rates = [side.tokens_per_s(work) for side in sides]
    step_s = [each for side in sides for each in side.step_s]
    typical = sides[rates.index(statistics.median_low(rates))]
    problems = list(dict.fromkeys(problem for side in sides for problem in side.problems(work)))
    peaks = [side.peak_memory_bytes for side in sides if side.peak_memory_bytes is not None]
    use = typical.utilization(work)
    return {
        "what": typical.what,
        "settings": typical.settings,
        "num_parameters": typical.num_parameters,
        "tokens_per_s": typical.tokens_per_s(work),
        "tokens_per_s_by_round": rates,
        "step_s": {
            "median": statistics.median(step_s),
            "shortest": min(step_s),
            "longest": max(step_s),
            "num_steps": len(step_s),
        },
        "warmup_s_by_round": [side.warmup_s for side in sides],
        "peak_memory_bytes": max(peaks, default=None),
        "peak_memory_source": typical.peak_memory_source,
        "mean_loss_nats": typical.mean_loss_nats,
        "flops_per_s": {
            convention: typical.tokens_per_s(work)
            * work.architecture.training_flops_per_token(
                work.config.seq_length, convention=convention
            )
            for convention in CONVENTIONS
        },
        "mfu": use.as_dict(),
        "valid": not problems,
        "invalid": problems,
    }


def _ratio(
    theirs: Sequence[Side | Refusal],
    ours: Sequence[Side | Refusal],
    facts: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """How many times apr's rate is a peer's, by round."""
    problems = [problem for side in facts for problem in side["invalid"]]
    if problems:
        return {"median": None, "by_round": None, "reason": f"invalid: {problems[0]}"}
    by_round = [
        statistics.median(their.step_s) / statistics.median(our.step_s)
        for their, our in zip(theirs, ours, strict=True)
        if isinstance(their, Side) and isinstance(our, Side)
    ]
    return {"median": statistics.median(by_round), "by_round": by_round, "reason": None}


def _parts_facts(work: Workload, side: Side) -> dict[str, Any]:
    step_s = statistics.median(side.step_s)
    parts = side.parts
    waits = side.data_wait_s
    copy_s = side.copy_s
    return {
        "parts": parts.as_dict() if parts else None,
        "parts_reason": None if parts else "no step was profiled",
        "profiled_over_timed": parts.step_s / step_s if parts else None,
        "data_wait_fraction": statistics.median(waits) / step_s if waits else None,
        "checkpoint": {
            "copy_s": copy_s,
            "steps_per_checkpoint": STEPS_PER_CHECKPOINT,
            "fraction": copy_s / (copy_s + STEPS_PER_CHECKPOINT * step_s) if copy_s else None,
            "what": "the copy that training waits for; apr bench checkpoint measures the writing",
        },
        "gradients": side.gradients,
    }
