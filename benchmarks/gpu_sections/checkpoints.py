"""How long a checkpoint holds the training up, and how long it is written beside it."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_sections.setting import Setting
from gpu_sections.training import TrainingSteps

_STEPS_PER_CHECKPOINT = 200
_SAVES = 2


def measure(setting: Setting) -> None:
    """The stall of a checkpoint as a share of the 200 steps that it is taken for."""
    setting.attempt("checkpoint", lambda: _stall(setting))


def _stall(setting: Setting) -> dict[str, Any]:
    from apr.bench.checkpoints import small_tokenizer
    from apr.train.checkpoint import TrainState
    from apr.train.checkpoint_writer import CheckpointWriter

    length, tokens = setting.sizes.training[0]
    config = setting.config(sequence_length=length, micro_batch_tokens=tokens)
    steps, state, times_s = TrainingSteps(setting, config), TrainState(), list[float]()

    def take(count: int) -> None:
        for _ in range(count):
            started_s = time.perf_counter()
            state.step += 1
            steps.take()
            times_s.append(time.perf_counter() - started_s)

    with (
        tempfile.TemporaryDirectory() as scratch,
        CheckpointWriter(
            Path(scratch),
            steps.model,
            steps.optimizer,
            tokenizer=small_tokenizer(),
            keep=1,
            before_writing=lambda: None,
        ) as checkpoints,
    ):
        take(3)
        stalls_s: list[float] = []
        for _ in range(_SAVES):
            before_s = state.checkpoint_s
            checkpoints.save(state, provenance=[])
            stalls_s.append(state.checkpoint_s - before_s)
            # In a run the next checkpoint is far away; here it would wait for this one.
            take(2)
            checkpoints.wait(state)
        step_s = statistics.median(times_s[1:])
    return {
        "parameter_bytes": 12 * setting.architecture.num_parameters,
        "stall_s": statistics.median(stalls_s),
        "written_in_s": state.checkpoint_write_s / _SAVES,
        "step_s": step_s,
        "share": statistics.median(stalls_s) / (_STEPS_PER_CHECKPOINT * step_s),
    }
