"""What the record of a run says to whoever goes on with it, and what it demands of them."""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from apr.architecture import Architecture, RopeScaling
from apr.container.provenance import entries_of
from apr.container.reader import Container
from apr.errors import DamagedFile, Refusal
from apr.train.config import TrainConfig
from apr.train.init_file import InitFile
from apr.train.inputs import Inputs
from apr.train.run_record import ENDED_WELL, RunRecord, config_in_force, resume_command

if TYPE_CHECKING:
    # `apr tokenize show-batch` reads a record, and should not load torch.
    from apr.train.train_state import TrainState

# What a resume reads, and of what kind it must be.
_KINDS: dict[str, type] = {
    "outcome": str,
    "config": dict,
    "inputs": dict,
    "architecture": dict,
    "gates": list,
    "val": dict,
    "throughput": dict,
    "environment": dict,
    "resumes": list,
}


def recorded_config(record: RunRecord) -> TrainConfig:
    """The configuration a run has by now: as it was started, and as resumes have changed it.

    Refuses: run.record-damaged.
    """
    for key, kind in _KINDS.items():
        if not isinstance(record.data.get(key), kind):
            raise _damaged(record, f"{key} is {record.data.get(key)!r:.60}")
    try:
        config = TrainConfig.model_validate(config_in_force(record.data))
        if config.learning_rate is None or config.warmup_steps is None:
            raise ValueError("config without a learning rate or a warm-up")
        return config
    except (ValidationError, ValueError, TypeError, AttributeError) as err:
        raise _damaged(record, str(err)) from err


def recorded_architecture(record: RunRecord) -> Architecture:
    """The shape of a run's model.

    Refuses: run.record-damaged.
    """
    fields = dict(record.data["architecture"])
    try:
        del fields["num_parameters"]
        if fields["rope_scaling"] is not None:
            fields["rope_scaling"] = RopeScaling(**fields["rope_scaling"])
        return Architecture(**fields)
    except (KeyError, TypeError, Refusal) as err:
        raise _damaged(record, f"architecture: {type(err).__name__}: {err}") from err


def require_unfinished(
    record: RunRecord, before: TrainConfig, state: "TrainState", *, is_ended: bool
) -> None:
    """Refuse to go on with a run that has ended well, and that no change has opened again.

    `before` is the configuration it ended under, `state` that of its last checkpoint.

    Refuses: run.finished.
    """
    outcome = record.data.get("outcome")
    if is_ended and outcome in ENDED_WELL:
        option = _opened_again_by(outcome, before, state)
        go_on = f"go on with {resume_command(record.run_dir)} {option}; or " if option else ""
        raise Refusal(
            "run.finished",
            record.run_dir,
            found=f"the run has ended: {outcome}",
            expected="a run that was stopped, or one that is to go further",
            fix=f"{go_on}start a new run with --init {record.run_dir / 'model.apr'}",
        )


def _opened_again_by(outcome: str, before: TrainConfig, state: "TrainState") -> str | None:
    """The option that lets an ended run go on, where there is one."""
    # Without a checkpoint there is nothing to go on from.
    if state.step == 0:
        return None
    if outcome == "budget_exhausted":
        # A rate that has fallen would jump.
        is_level = before.schedule == "constant"
        return f"--num-steps N, more than {state.step}" if is_level else None
    if state.step >= before.num_steps:
        return None
    if outcome == "early_stop":
        return f"--patience N, more than {state.stale_validations}"
    assert state.best_loss_nats is not None
    return f"--target-val-loss N, lower than {state.best_loss_nats:.4f}"


def recorded_ranks(record: RunRecord) -> int:
    """How many ranks the last sitting of a run had; one before there were any.

    Refuses: run.record-damaged.
    """
    environment = dict(record.data["environment"])
    try:
        for resumed in record.data["resumes"][-1:]:
            environment |= resumed["environment_changed"]
    except (KeyError, TypeError) as err:
        raise _damaged(record, f"resumes: {type(err).__name__}: {err}") from err
    number = environment.get("ranks", 1)
    if not isinstance(number, int) or number < 1:
        raise _damaged(record, f"environment: {number!r:.60} ranks")
    return number


def require_complete(record: RunRecord) -> None:
    """Refuse a record that lacks what was settled before step 1.

    Refuses: run.record-damaged.
    """
    try:
        record.frozen_sha256()
        record.data["inputs"]["init"]
    except (KeyError, TypeError) as err:
        raise _damaged(record, f"no {err}") from err


def require_own_checkpoint(record: RunRecord, checkpoint: Path) -> None:
    """Refuse a checkpoint whose weights name another run as their origin.

    Refuses: resume.foreign-checkpoint, and what opening the file refuses.
    """
    with Container.open(checkpoint / "model.apr") as container:
        entries = entries_of(container.metadata)
    said = entries[-1].get("run_record_sha256") if entries else None
    if said != record.frozen_sha256():
        raise Refusal(
            "resume.foreign-checkpoint",
            checkpoint,
            found=f"weights of the run with record {said!s:.12}",
            expected=f"{record.frozen_sha256():.12}, the record of this run as it was started",
            fix="put this run's own checkpoints, and its run.json, back",
        )


def require_same_init(record: RunRecord, init: InitFile) -> None:
    """Refuse to begin again from another initial file than the run began with.

    Refuses: resume.inputs-changed.
    """
    before = record.data["inputs"].get("init") or {}
    if init.architecture is None or init.sha256 != before.get("sha256"):
        raise _changed("initial model", init.sha256 or init.gates[0].found, before.get("sha256"))


def require_same_inputs(record: RunRecord, inputs: Inputs) -> None:
    """Refuse to go on with other data or another tokenizer than a run began with.

    Refuses: resume.inputs-changed.
    """
    recorded = record.data["inputs"]
    try:
        train = recorded["train"]
        pairs = [
            ("tokenizer", recorded["tokenizer"]["fingerprint"], inputs.tokenizer.fingerprint),
            ("number of training datasets", len(train), len(inputs.train)),
        ]
        for at, (before, shards) in enumerate(zip(train, inputs.train, strict=False)):
            name = "training shards" + (f" {at + 1} of {len(train)}" if at else "")
            pairs.append((name, before["sha256"], shards.manifest_sha256))
        if inputs.val is not None:
            before = (recorded["val"] or {"sha256": "documents set aside"})["sha256"]
            pairs.append(("held-out shards", before, inputs.val.manifest_sha256))
    except (KeyError, IndexError, TypeError) as err:
        raise _damaged(record, f"inputs without {err}") from err
    for name, before, found in pairs:
        if before != found:
            raise _changed(name, found, before)


def _changed(name: str, found: object, before: object) -> Refusal:
    return Refusal(
        "resume.inputs-changed",
        name,
        found=found,
        expected=f"{before}, as at the start",
        fix="put the original back, name where it lies now, or start a new run",
    )


def _damaged(record: RunRecord, found: str) -> DamagedFile:
    return DamagedFile(
        "run.record-damaged",
        record.run_dir / "run.json",
        found=found,
        expected="the record of a run, as apr wrote it",
        fix="restore the file",
    )
