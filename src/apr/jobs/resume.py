"""`apr pretrain --resume`: a run gone on with, as if it had never stopped."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from apr.files import require_exists
from apr.jobs.recorded import (
    recorded_architecture,
    recorded_config,
    recorded_ranks,
    require_complete,
    require_own_checkpoint,
    require_same_init,
    require_same_inputs,
    require_unfinished,
)
from apr.jobs.run_lock import hold_run
from apr.jobs.sitting import SILENT, Listener, sit
from apr.train.allocator import keep_freed_memory
from apr.train.changes import (
    changed_config,
    differences,
    require_rate_continues,
    require_steps_left,
    require_target_ahead,
    still_ended,
)
from apr.train.checkpoint import latest_checkpoint, load_progress, read_state, weights_of
from apr.train.config import TrainConfig, absolute_paths
from apr.train.gates import Gate, apply_waivers, judge, require_passed
from apr.train.init_file import InitFile, read_init
from apr.train.inputs import Inputs, open_inputs
from apr.train.optimizer import build_optimizer
from apr.train.prepare import PreparedRun, judge_gradients, prepare
from apr.train.rank_config import for_ranks, with_same_micro_batches
from apr.train.ranks import ALONE, Ranks
from apr.train.repeatable import repeatable
from apr.train.run_record import RunRecord, now, steps_logged_after
from apr.train.spread import spread
from apr.train.token_budget_gate import check_token_budget
from apr.train.train_state import TrainState


def resume(
    run_dir: Path,
    *,
    changes: Mapping[str, Any] | None = None,
    ranks: Ranks = ALONE,
    listener: Listener = SILENT,
) -> dict[str, Any]:
    """Continue a run from its newest verified checkpoint; return the run record.

    `changes` are fields of the configuration that differ from now on; the record keeps each with
    the step it took effect. Inputs may lie elsewhere, if they are the same by hash.

    Refuses: run.not-found, run.finished, run.busy, run.record-damaged, resume.inputs-changed,
    resume.another-run, resume.rate-jumps, resume.no-steps-left, resume.foreign-checkpoint,
    config.target-met-already, preflight.token-budget and preflight.gradients where a change calls
    for them, and what training refuses.
    Writes: the run directory.
    """
    require_exists(run_dir, "a run directory")
    run_dir = run_dir.absolute()
    RunRecord.load(run_dir)
    with hold_run(run_dir) if ranks.is_first else nullcontext():
        record = RunRecord.load(run_dir, is_kept=ranks.is_first)
        before = recorded_config(record)
        require_complete(record)
        config = absolute_paths(changed_config(before, {"run_dir": run_dir, **(changes or {})}))
        asked = (changes or {}).keys()
        if "grad_accum" not in asked:
            config = with_same_micro_batches(config, recorded_ranks(record), ranks)
        config = for_ranks(config, ranks, asked=asked)
        checkpoint, passed_over = latest_checkpoint(run_dir)
        for reason in passed_over:
            listener.notify(f"passed over a damaged checkpoint: {reason}")
        state = TrainState()
        if checkpoint is not None:
            state = read_state(checkpoint)
        elif (run_dir / "steps.jsonl").exists():
            listener.notify("there is no checkpoint to go on from: the run begins again")
        state.ended = still_ended(state, config)
        # Without a checkpoint an ended run would be trained from nothing, over its own model.
        is_ended = state.ended is not None or checkpoint is None
        require_unfinished(record, before, state, is_ended=is_ended)
        require_steps_left(config, state)
        require_target_ahead(before, config, state)
        require_rate_continues(before, config, state.step)
        if checkpoint is not None:
            listener.notify(_where_it_goes_on(run_dir, state, config))
        keep_freed_memory()
        with repeatable(config.device, seed=config.seed, deterministic=config.deterministic):
            run = _prepared(record, config, ranks, checkpoint, listener=listener)
            gates = _judged_again(record, before, run)
            require_passed(gates, run_dir)
            run = spread(run)
            optimizer = build_optimizer(run.model, run.config)
            if checkpoint is not None:
                load_progress(checkpoint, run.model, optimizer)
            listener.save_from_here()
            _record_resume(record, run, state, before, passed_over, gates)
            return sit(run, record, optimizer, state, listener=listener)


def _where_it_goes_on(run_dir: Path, state: TrainState, config: TrainConfig) -> str:
    if state.ended is not None:
        return f"step {state.step} was the last one: the run is only brought to its end"
    repeated = steps_logged_after(run_dir, state.step)
    again = f"; logged after it, and taken again: {repeated}" if repeated else ""
    return f"going on from the checkpoint of step {state.step} of {config.num_steps}{again}"


def _prepared(
    record: RunRecord,
    config: TrainConfig,
    ranks: Ranks,
    checkpoint: Path | None,
    *,
    listener: Listener,
) -> PreparedRun:
    """The run with the weights of its checkpoint, or with those it began with."""
    init, starts_anew = None, checkpoint is None
    if config.init and (starts_anew or str(config.init) != record.data["config"].get("init")):
        init = _same_init(record, config, listener)
    inputs: Inputs = open_inputs(
        config,
        init=init if starts_anew else None,
        architecture=recorded_architecture(record),
        progress=listener.progress,
    )
    require_same_inputs(record, inputs)
    if checkpoint is not None:
        require_own_checkpoint(record, checkpoint)
    return prepare(
        config,
        inputs,
        ranks=ranks,
        notify=listener.notify,
        weights=checkpoint and weights_of(checkpoint, inputs.architecture),
        progress=listener.progress,
    )


def _same_init(record: RunRecord, config: TrainConfig, listener: Listener) -> InitFile:
    assert config.init is not None
    init = read_init(config.init, progress=listener.progress)
    require_same_init(record, init)
    return init


def _judged_again(record: RunRecord, before: TrainConfig, run: PreparedRun) -> list[Gate]:
    """The gates whose ground a change has taken away."""
    changed, gates = differences(before, run.config), list[Gate]()
    if "num_steps" in changed:
        init = record.data["inputs"].get("init")
        seen = InitFile(Path(init["path"]), (), tokens_seen=init["tokens_seen"]) if init else None
        inputs = replace(run.inputs, init=seen)
        gates.append(
            judge("preflight.token-budget", lambda: check_token_budget(run.config, inputs))
        )
    computing = {"device", "precision", "compile", "attention", "activation_checkpointing"}
    if changed.keys() & computing:
        gates.append(judge_gradients(run))
    return apply_waivers(gates, run.config.waive)


def _record_resume(
    record: RunRecord,
    run: PreparedRun,
    state: TrainState,
    before: TrainConfig,
    passed_over: list[str],
    gates: list[Gate],
) -> None:
    environment, here = record.data["environment"], run.environment()
    changed = {key: here[key] for key in here if here[key] != environment.get(key)}
    record.data["resumes"].append(
        {
            "step": state.step,
            "at": now(),
            "environment_changed": changed,
            "config_changed": {
                field: list(pair) for field, pair in differences(before, run.config).items()
            },
            "gates": [gate.as_record() for gate in gates],
            "passed_over": passed_over,
        }
    )
    record.data |= {"outcome": "running", "outcome_detail": None, "finished_at": None}
