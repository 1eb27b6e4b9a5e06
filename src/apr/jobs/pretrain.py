"""`apr pretrain`: from a configuration to a model file that is what its record says.

The order is the promise: files are verified and judged before a weight exists, the model is
measured before step 1, nothing is written before every gate has passed or been waived, and the
run counts as finished only after its model file has been written and read back.
"""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from apr.architecture import Architecture
from apr.errors import Interrupted
from apr.files import require_writable_place
from apr.jobs.costs import costs_of_inputs
from apr.jobs.record import first_record
from apr.jobs.run_lock import hold_run
from apr.jobs.sitting import SILENT, Listener, sit
from apr.train.allocator import keep_freed_memory
from apr.train.config import (
    TrainConfig,
    absolute_paths,
    within_positions,
    without_a_met_target,
)
from apr.train.division import divided
from apr.train.gates import (
    NEVER_WAIVED,
    NOT_JUDGED,
    UPSTREAM_IDS,
    Gate,
    require_passed,
)
from apr.train.init_file import InitFile, read_init
from apr.train.inputs import Inputs, open_inputs, require_enough_held_out
from apr.train.measured_rate import measure_prepared
from apr.train.optimizer import build_optimizer
from apr.train.prepare import (
    Judgement,
    PreparedRun,
    affordable_set,
    judge_files,
    judge_model,
    prepare,
)
from apr.train.rank_config import for_ranks
from apr.train.ranks import ALONE, Ranks
from apr.train.rate import Rate
from apr.train.repeatable import repeatable
from apr.train.run_record import require_no_run
from apr.train.spread import spread
from apr.train.train_state import TrainState
from apr.train.unseen_text import why_not_unseen

# Behind these a model cannot be built, or its numbers would say nothing.
_NEEDED_BY_MODEL = (*NEVER_WAIVED, "preflight.id-range", "preflight.val-empty", "preflight.memory")
_VALIDATING_S, _MEASURING_S = 30.0, 10.0
_BLOCKED = "not measured: a gate says no"


def pretrain(
    config: TrainConfig,
    *,
    baselines: dict[str, float] | None = None,
    ranks: Ranks = ALONE,
    listener: Listener = SILENT,
) -> dict[str, Any]:
    """Train a model on shards, from fresh weights or an initial file; return the run record.

    `baselines` are yardsticks in bits per byte, recorded beside the model's own figure.

    Refuses: every preflight gate by its id, config.eval-tokens, config.target-met-already,
    run.exists, run.busy, train.*, files.io-failed. Raises Interrupted after saving when the
    listener asks to stop.
    Writes: the run directory.
    """
    config = for_ranks(absolute_paths(config), ranks, asked=config.model_fields_set)
    require_no_run(config.run_dir)
    require_writable_place(config.run_dir / "run.json")
    keep_freed_memory()
    with repeatable(config.device, seed=config.seed, deterministic=config.deterministic):
        init = _read_init(config, listener)
        gates = list(init.gates) if init else []
        require_passed(gates, init.path if init else config.run_dir)
        config = within_positions(config, init and init.architecture)
        inputs = open_inputs(config, init=init, progress=listener.progress)
        config = _divided(config, inputs, ranks, listener)
        gates += judge_files(config, inputs, ranks)
        require_passed(gates, config.run_dir)
        require_enough_held_out(config, inputs.data)
        if reason := why_not_unseen(inputs):
            listener.notify(f"held-out text: {reason}")
        run = prepare(
            config, inputs, ranks=ranks, notify=listener.notify, progress=listener.progress
        )
        judgement = judge_model(run, progress=listener.progress)
        gates += judgement.gates
        require_passed(gates, config.run_dir)
        run = _with_a_target_to_meet(run, judgement, listener)
        if any(ranks.any(listener.should_stop())):
            raise Interrupted("stopped before step 1; nothing was written")
        listener.save_from_here()
        with hold_run(config.run_dir) if ranks.is_first else nullcontext():
            require_no_run(config.run_dir)
            record = first_record(run, gates, judgement, baselines)
            run = spread(run)
            optimizer = build_optimizer(run.model, run.config)
            return sit(run, record, optimizer, TrainState(), listener=listener)


def _divided(config: TrainConfig, inputs: Inputs, ranks: Ranks, listener: Listener) -> TrainConfig:
    return divided(
        config,
        inputs.architecture,
        num_documents=inputs.num_documents,
        ranks=ranks,
        notify=listener.notify,
    )


def _with_a_target_to_meet(
    run: PreparedRun, judgement: Judgement, listener: Listener
) -> PreparedRun:
    if judgement.init is None:
        return run
    config = without_a_met_target(run.config, judgement.init.loss_nats)
    if config is not run.config:
        listener.notify(
            f"the default target of {run.config.target_val_loss:g} nats is met already "
            f"({judgement.init.loss_nats:.4f} before step 1): the run has no target and takes all "
            f"{config.num_steps} steps"
        )
    return replace(run, config=config)


@dataclass(frozen=True)
class Plan:
    """A run as it would be: its resolved configuration, its model, its verdicts."""

    config: TrainConfig
    architecture: Architecture | None
    """None when the initial file does not say."""
    gates: list[Gate]
    costs: dict[str, Any] | None
    """What the run would take, as `jobs.costs` says it."""

    @property
    def may_start(self) -> bool:
        """Whether no gate blocks."""
        return not any(gate.blocks for gate in self.gates)

    def as_dict(self) -> dict[str, Any]:
        """The object that `apr pretrain --dry-run --json` prints."""
        shape = self.architecture
        return {
            "may_start": self.may_start,
            "gates": [gate.as_record() for gate in self.gates],
            **(self.costs or {}),
            "training_state_bytes": shape and shape.training_state_bytes(),
            "config": self.config.model_dump(mode="json"),
        }


def preflight(
    config: TrainConfig,
    *,
    ranks: Ranks = ALONE,
    listener: Listener = SILENT,
) -> Plan:
    """Judge every gate of a run and write nothing.

    A gate that another one keeps from being judged is UNKNOWN. Of a large held-out set as much is
    read as half a minute allows, and the verdict says how much.

    Refuses: config.eval-tokens, config.target-met-already, run.exists, files.io-failed, and what
    opening tokenizer and shards refuses; a failed gate is in the answer.
    """
    config = for_ranks(absolute_paths(config), ranks, asked=config.model_fields_set)
    require_no_run(config.run_dir)
    require_writable_place(config.run_dir / "run.json")
    keep_freed_memory()
    with repeatable(config.device, seed=config.seed, deterministic=config.deterministic):
        init = _read_init(config, listener)
        gates = list(init.gates) if init else []
        if init and init.architecture is None:
            return Plan(config, None, _with_the_unjudged(gates), None)
        config = within_positions(config, init and init.architecture)
        inputs = open_inputs(config, init=init, progress=listener.progress)
        config = _divided(config, inputs, ranks, listener)
        gates += judge_files(config, inputs, ranks)
        if any(gate.blocks and gate.id in _NEEDED_BY_MODEL for gate in gates):
            costs = costs_of_inputs(config, inputs, Rate(None, _BLOCKED), ranks)
            return Plan(config, inputs.architecture, _with_the_unjudged(gates), costs)
        require_enough_held_out(config, inputs.data)
        run = prepare(
            config, inputs, ranks=ranks, notify=listener.notify, progress=listener.progress
        )
        held_out = affordable_set(run, limit_s=_VALIDATING_S)
        judgement = judge_model(run, held_out=held_out, progress=listener.progress)
        gates += judgement.gates
        _with_a_target_to_meet(run, judgement, listener)
        rate = Rate(None, _BLOCKED)
        if not any(gate.blocks for gate in gates):
            rate = measure_prepared(run, limit_s=_MEASURING_S)
        costs = costs_of_inputs(config, inputs, rate, ranks)
        return Plan(run.config, inputs.architecture, gates, costs)


def _read_init(config: TrainConfig, listener: Listener) -> InitFile | None:
    if config.init is None:
        return None
    if config.mode == "from-scratch":
        listener.notify(
            f"--mode from-scratch beside --init: the weights are those of {config.init.name}, the "
            "rates those of a run from scratch"
        )
    return read_init(config.init, progress=listener.progress)


def _with_the_unjudged(gates: list[Gate]) -> list[Gate]:
    """The gates, and as UNKNOWN those that were not reached because of them."""
    blocking = next(gate for gate in gates if gate.blocks)
    unjudged = replace(
        blocking,
        verdict="UNKNOWN",
        found=NOT_JUDGED,
        expected=f"{blocking.id} passed",
        fix=f"see {blocking.id}",
    )
    judged = {gate.id for gate in gates}
    return gates + [
        replace(unjudged, id=id, upstream_id=upstream_id)
        for id, upstream_id in UPSTREAM_IDS.items()
        if id not in judged and id not in NEVER_WAIVED
    ]
