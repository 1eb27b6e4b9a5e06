"""`apr pretrain --resume`: a run gone on with, as if it had never stopped."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apr.files import require_exists
from apr.jobs.record import (
    recorded_architecture,
    recorded_config,
    require_same_init,
    require_same_inputs,
    require_unfinished,
)
from apr.jobs.run_lock import hold_run
from apr.jobs.sitting import SILENT, Listener, sit
from apr.train.acceleration import keep_freed_memory, repeatable
from apr.train.changes import (
    changed_config,
    differences,
    require_rate_continues,
    require_steps_left,
    still_ended,
)
from apr.train.checkpoint import TrainState, latest_checkpoint, load_checkpoint, read_state
from apr.train.config import TrainConfig, absolute_paths
from apr.train.init_file import InitFile, read_init
from apr.train.inputs import Inputs, open_inputs
from apr.train.optimizer import build_optimizer
from apr.train.prepare import PreparedRun, prepare
from apr.train.run_record import RunRecord, now


def resume(
    run_dir: Path,
    *,
    changes: Mapping[str, Any] | None = None,
    listener: Listener = SILENT,
) -> dict[str, Any]:
    """Continue a run from its newest verified checkpoint; return the run record.

    `changes` are fields of the configuration that differ from now on; the record keeps each with
    the step it took effect. Inputs may lie elsewhere, if they are the same by hash.

    Refuses: run.not-found, run.finished, run.busy, run.record-damaged, resume.inputs-changed,
    resume.another-run, resume.rate-jumps, resume.no-steps-left, and what training refuses.
    Writes: the run directory.
    """
    require_exists(run_dir, "a run directory")
    run_dir = run_dir.absolute()
    RunRecord.load(run_dir)
    with hold_run(run_dir):
        record = RunRecord.load(run_dir)
        before = recorded_config(record)
        config = absolute_paths(changed_config(before, {"run_dir": run_dir, **(changes or {})}))
        checkpoint, passed_over = latest_checkpoint(run_dir)
        for reason in passed_over:
            listener.notify(f"passed over a damaged checkpoint: {reason}")
        state = read_state(checkpoint) if checkpoint else TrainState()
        state.ended = still_ended(state, config)
        require_unfinished(record, is_ended=state.ended is not None)
        require_steps_left(config, state)
        require_rate_continues(before, config, state.step)
        keep_freed_memory()
        with repeatable(config.device, seed=config.seed, deterministic=config.deterministic):
            run = _prepared(record, config, starts_anew=checkpoint is None, listener=listener)
            optimizer = build_optimizer(run.model, run.config)
            if checkpoint is not None:
                load_checkpoint(checkpoint, run.model, optimizer)
            _record_resume(record, run, state, before, passed_over)
            return sit(run, record, optimizer, state, listener=listener)


def _prepared(
    record: RunRecord, config: TrainConfig, *, starts_anew: bool, listener: Listener
) -> PreparedRun:
    """The run with its weights from where it began, or with none yet."""
    init = _same_init(record, config, listener) if starts_anew and config.init else None
    inputs: Inputs = open_inputs(
        config,
        init=init,
        architecture=recorded_architecture(record),
        progress=listener.progress,
    )
    require_same_inputs(record, inputs)
    return prepare(
        config,
        inputs,
        notify=listener.notify,
        # Every parameter stays NaN until the checkpoint fills it.
        fill=None if starts_anew else lambda _model: None,
        progress=listener.progress,
    )


def _same_init(record: RunRecord, config: TrainConfig, listener: Listener) -> InitFile:
    assert config.init is not None
    init = read_init(config.init, progress=listener.progress)
    require_same_init(record, init)
    return init


def _record_resume(
    record: RunRecord,
    run: PreparedRun,
    state: TrainState,
    before: TrainConfig,
    passed_over: list[str],
) -> None:
    environment, here = record.data["environment"], run.acceleration.environment()
    changed = {key: here[key] for key in here if here[key] != environment.get(key)}
    record.data["resumes"].append(
        {
            "step": state.step,
            "at": now(),
            "environment_changed": changed,
            "config_changed": {
                field: list(pair) for field, pair in differences(before, run.config).items()
            },
            "passed_over": passed_over,
        }
    )
    record.data |= {"outcome": "running", "outcome_detail": None, "finished_at": None}
