"""`apr pretrain`: from a configuration to a model file that is what its record says.

The order is the promise: files are verified and judged before a weight exists, the fresh model
is measured before step 1, nothing is written before every gate has passed or been waived, and
the run counts as finished only after its model file has been written and read back.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from apr.architecture import Architecture
from apr.errors import Interrupted, IoFailed, Refusal
from apr.files import require_exists
from apr.jobs.costs import costs_of_inputs
from apr.jobs.finish import end_run
from apr.jobs.record import (
    first_record,
    recorded_config,
    require_same_inputs,
    require_unfinished,
)
from apr.jobs.run_lock import hold_run
from apr.progress import Report, silent
from apr.report.page import write_report
from apr.train.acceleration import keep_freed_memory, repeatable
from apr.train.checkpoint import TrainState, latest_checkpoint, load_checkpoint
from apr.train.config import TrainConfig, absolute_paths
from apr.train.gates import Gate, require_passed
from apr.train.measured_rate import measure_prepared
from apr.train.optimizer import build_optimizer
from apr.train.preflight import open_inputs
from apr.train.prepare import PreparedRun, judge_files, judge_model, prepare
from apr.train.rate import Rate
from apr.train.run_record import RunRecord, StepLog, now, require_no_run
from apr.train.trainer import Trainer

_MEASURING_S = 10.0
_BLOCKED = "not measured: a gate says no"


@dataclass(frozen=True)
class Listener:
    """How a job under way talks to whoever started it; silent by default."""

    progress: Report = silent
    notify: Callable[[str], None] = lambda _text: None
    should_stop: Callable[[], bool] = lambda: False


def pretrain(
    config: TrainConfig,
    *,
    baselines: dict[str, float] | None = None,
    listener: Listener = Listener(),
) -> dict[str, Any]:
    """Train a model from scratch on shards; return the run record.

    `baselines` are yardsticks in bits per byte, recorded beside the model's own figure.

    Refuses: every preflight gate by its id, run.exists, run.busy, train.non-finite,
    files.io-failed. Raises Interrupted after saving when the listener asks to stop.
    Writes: the run directory.
    """
    config = absolute_paths(config)
    require_no_run(config.run_dir)
    keep_freed_memory()
    with repeatable(config.device, seed=config.seed):
        inputs = open_inputs(config, progress=listener.progress)
        gates = judge_files(config, inputs)
        require_passed(gates, config.run_dir)
        run = prepare(config, inputs, notify=listener.notify)
        judgement = judge_model(run, progress=listener.progress)
        gates += judgement.gates
        require_passed(gates, config.run_dir)
        if listener.should_stop():
            raise Interrupted("stopped before step 1; nothing was written")
        with hold_run(config.run_dir):
            require_no_run(config.run_dir)
            record = first_record(run, gates, judgement, baselines)
            record.write()
            return _work(run, record, TrainState(), listener=listener)


@dataclass(frozen=True)
class Plan:
    """A run as it would be: its resolved configuration, its model, its verdicts."""

    config: TrainConfig
    architecture: Architecture
    gates: list[Gate]
    costs: dict[str, Any]
    """What the run would take, as `jobs.costs` says it."""

    @property
    def may_start(self) -> bool:
        """Whether no gate blocks."""
        return not any(gate.blocks for gate in self.gates)

    def as_dict(self) -> dict[str, Any]:
        """The object that `apr pretrain --dry-run --json` prints."""
        return {
            "may_start": self.may_start,
            "gates": [gate.as_record() for gate in self.gates],
            **self.costs,
            "training_state_bytes": self.architecture.training_state_bytes(),
            "config": self.config.model_dump(mode="json"),
        }


def preflight(
    config: TrainConfig,
    *,
    listener: Listener = Listener(),
) -> Plan:
    """Judge every gate of a run and write nothing.

    Refuses: what opening tokenizer and shards refuses; a failed gate is in the answer.
    """
    config = absolute_paths(config)
    require_no_run(config.run_dir)
    keep_freed_memory()
    with repeatable(config.device, seed=config.seed):
        inputs = open_inputs(config, progress=listener.progress)
        gates = judge_files(config, inputs)
        if any(gate.blocks for gate in gates):
            costs = costs_of_inputs(config, inputs, Rate(None, _BLOCKED))
            return Plan(config, inputs.architecture, gates, costs)
        run = prepare(config, inputs, notify=listener.notify)
        gates += judge_model(run, progress=listener.progress).gates
        rate = Rate(None, _BLOCKED)
        if not any(gate.blocks for gate in gates):
            rate = measure_prepared(run, limit_s=_MEASURING_S)
        costs = costs_of_inputs(run.config, inputs, rate)
        return Plan(run.config, inputs.architecture, gates, costs)


def resume(
    run_dir: Path,
    *,
    listener: Listener = Listener(),
) -> dict[str, Any]:
    """Continue a run from its newest verified checkpoint, as if it had never stopped.

    Refuses: run.not-found, run.finished, run.busy, run.record-damaged, resume.inputs-changed.
    Writes: the run directory.
    """
    require_exists(run_dir, "a run directory")
    run_dir = run_dir.absolute()
    RunRecord.load(run_dir)
    with hold_run(run_dir):
        record = RunRecord.load(run_dir)
        config = recorded_config(record)
        require_unfinished(record)
        keep_freed_memory()
        with repeatable(config.device, seed=config.seed):
            inputs = open_inputs(config, progress=listener.progress)
            require_same_inputs(record, inputs)
            run = prepare(config, inputs, notify=listener.notify)
            return _work(run, record, None, listener=listener)


def _work(
    run: PreparedRun, record: RunRecord, state: TrainState | None, *, listener: Listener
) -> dict[str, Any]:
    """Train from `state`, or from the newest checkpoint, and end the run truthfully."""
    optimizer = build_optimizer(run.model, run.config)
    if state is None:
        state = _restore(run, record, optimizer, listener)
    last_known_step = state.step if state.step > 0 else -1
    with (
        _truthful_ending(record),
        StepLog.open(record.run_dir, keep_through_step=last_known_step) as log,
    ):
        trainer = Trainer(
            run=run,
            run_dir=record.run_dir,
            optimizer=optimizer,
            run_record_sha256=record.frozen_sha256(),
            log=log,
            progress=listener.progress,
        )
        outcome = trainer.train(state, should_stop=listener.should_stop)
        end_run(trainer, record, state, outcome)
    return record.data


def _restore(
    run: PreparedRun, record: RunRecord, optimizer: torch.optim.Optimizer, listener: Listener
) -> TrainState:
    checkpoint, passed_over = latest_checkpoint(record.run_dir)
    for reason in passed_over:
        listener.notify(f"passed over a damaged checkpoint: {reason}")
    state = load_checkpoint(checkpoint, run.model, optimizer) if checkpoint else TrainState()
    before, now_here = record.data["environment"], run.acceleration.environment()
    changed = {key: now_here[key] for key in now_here if now_here[key] != before.get(key)}
    record.data["resumes"].append(
        {
            "step": state.step,
            "at": now(),
            "environment_changed": changed,
            "passed_over": passed_over,
        }
    )
    record.data |= {"outcome": "running", "outcome_detail": None, "finished_at": None}
    record.write()
    return state


@contextmanager
def _truthful_ending(record: RunRecord) -> Generator[None]:
    """Give every way out of a run its own word in the record."""
    try:
        yield
    except Interrupted:
        raise
    except IoFailed as err:
        _try_to_finish(record, "artifact_lost", f"{err.where}: {err.found}")
        raise
    except Refusal as err:
        _try_to_finish(record, "aborted", f"{err.id}: {err.where}: {err.found}")
        raise
    except KeyboardInterrupt:
        _try_to_finish(record, "interrupted", "stopped at once, without saving")
        raise
    except BaseException as err:
        _try_to_finish(record, "aborted", f"{type(err).__name__}: {err}")
        raise


def _try_to_finish(record: RunRecord, outcome: str, detail: str) -> None:
    # On a full disk the record keeps its last word, `running`, which is no success either.
    with suppress(Refusal):
        record.finish(outcome, detail=detail)
        write_report(record.run_dir)
