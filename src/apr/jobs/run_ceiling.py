"""The matrix ceiling of a run's device, and what the run's rate is of it, for the run record."""

from typing import Any

from apr.bench.ceiling import Ceiling, measure_ceiling
from apr.bench.utilization import utilization
from apr.train.acceleration import is_long
from apr.train.prepare import PreparedRun
from apr.train.run_record import RunRecord

# Once per sitting of a run that is long enough not to notice.
_LIMIT_S = 0.25
_TOO_SHORT = "no matmul ceiling was measured: the run is too short to spend a quarter second on it"
_TWO_DEVICES = "the sittings of this run computed on different devices, or in different precisions"


def note_ceiling(run: PreparedRun, record: RunRecord) -> None:
    """Measure the ceiling at the start of a sitting and put it into the record, not yet written.

    Over several sittings on one device it is the highest.
    """
    throughput = record.data["throughput"]
    if not is_long(run.config, run.model.architecture):
        for name in ("matmul_ceiling", "mfu", "mfu_causal"):
            throughput |= {name: None, f"{name}_reason": _TOO_SHORT}
        return
    acceleration = run.acceleration
    found = measure_ceiling(acceleration.device, acceleration.compute_dtype, limit_s=_LIMIT_S)
    before = throughput.get("matmul_ceiling")
    throughput["matmul_ceiling"] = found.as_dict() if before is None else _higher(found, before)
    throughput["matmul_ceiling_reason"] = None


def utilization_facts(run: PreparedRun, record: RunRecord, tokens_per_s: float) -> dict[str, Any]:
    """The record's fields on which share of the ceiling a rate is; null with a reason."""
    noted = record.data["throughput"].get("matmul_ceiling")
    if noted is None:
        return {}
    use = utilization(
        # The ceiling is of one device.
        tokens_per_s / run.ranks.world_size,
        run.model.architecture,
        sequence_length=run.config.seq_length,
        num_parameters=record.data["architecture"]["num_parameters"],
        ceiling=Ceiling(**noted),
    )
    reason = use.reason or (f"invalid: {'; '.join(use.invalid)}" if use.invalid else None)
    return {
        "mfu": None if reason else use.conventional,
        "mfu_reason": reason,
        "mfu_causal": None if reason else use.causal,
        "mfu_causal_reason": reason,
    }


def _higher(found: Ceiling, before: dict[str, Any]) -> dict[str, Any]:
    same = (found.device_name, found.precision) == (before["device_name"], before["precision"])
    if not same:
        return Ceiling(None, _TWO_DEVICES, found.device_name, found.precision).as_dict()
    return found.as_dict() if (found.flops_per_s or 0) > (before["flops_per_s"] or 0) else before
