"""Training tokens per second, and where the number is from."""

from dataclasses import dataclass

from apr.architecture import Architecture
from apr.train.flags import TOKENS_PER_S
from apr.train.run_record import RunRecord


@dataclass(frozen=True)
class Rate:
    """Tokens per second; None where there is no number, and `source` says why."""

    tokens_per_s: float | None
    source: str


def rate_of_run(record: RunRecord, architecture: Architecture, *, sequence_length: int) -> Rate:
    """What an earlier run of the same shape reached, validations and checkpoints included.

    Another shape or sequence length has another speed, so such a run gives no number.
    """
    name = record.run_dir
    try:
        measured = record.data["throughput"]["tokens_per_s_end_to_end"]
        num_parameters = record.data["architecture"]["num_parameters"]
        its_length = record.data["config"]["seq_length"]
        device = record.data["environment"].get("device_name", "an unnamed device")
    except (KeyError, TypeError, AttributeError) as err:
        return Rate(None, f"the record of {name} lacks {err}")
    slowest, fastest = TOKENS_PER_S
    is_number = isinstance(measured, int | float) and not isinstance(measured, bool)
    if not (is_number and slowest <= measured <= fastest):
        return Rate(None, f"{name} measured no tokens per second that a machine has")
    if (num_parameters, its_length) != (architecture.num_parameters, sequence_length):
        return Rate(
            None,
            f"{name} trained {num_parameters} parameters at sequence length {its_length}, not "
            f"{architecture.num_parameters} at {sequence_length}",
        )
    return Rate(float(measured), f"{name}, end to end, on {device}")
