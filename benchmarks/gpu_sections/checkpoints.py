"""How long a checkpoint holds the training up, and how long it is written beside it."""

from typing import Any

from gpu_sections.setting import Setting

# Two checkpoints are written, and the first only takes the memory that the second uses again.
_ROUNDS, _STEPS, _WARMUP_STEPS = 1, 3, 3


def measure(setting: Setting) -> None:
    """The stall of a checkpoint as a share of the steps that it is taken for."""
    setting.attempt("checkpoint", lambda: _stall(setting))


def _stall(setting: Setting) -> dict[str, Any]:
    from apr.bench.checkpoints import BESIDE, NONE, measure_checkpoints, summarize_checkpoints
    from apr.bench.reference import Workload

    length, tokens = setting.sizes.training[0]
    config = setting.config(sequence_length=length, micro_batch_tokens=tokens)
    work = Workload(setting.architecture, config, _STEPS, _WARMUP_STEPS)
    measured = measure_checkpoints(work, ways=(NONE, BESIDE), num_rounds=_ROUNDS, directory=None)
    summary = summarize_checkpoints(measured)
    costs = summary["ways"][BESIDE]
    return {
        "parameter_bytes": 12 * setting.architecture.num_parameters,
        "stall_s": costs["stall_s"],
        "written_in_s": costs["written_s"],
        "step_s": summary["step_s"],
        "share": costs["stall_fraction"],
    }
