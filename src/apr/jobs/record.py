"""What a run's record says at its beginning, and what a resume demands of it."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from apr.architecture import Architecture, RopeScaling
from apr.container.provenance import entries_of
from apr.container.reader import Container
from apr.errors import DamagedFile, Refusal
from apr.files import sha256_bytes
from apr.shards.reader import ShardReader
from apr.train.config import TrainConfig
from apr.train.gates import Gate
from apr.train.init_file import InitFile
from apr.train.inputs import Inputs
from apr.train.mixture import Mixture
from apr.train.run_record import NOT_ENDED, RunRecord, config_in_force

if TYPE_CHECKING:
    # A record is also read by commands that compute nothing, and these should not load torch.
    from apr.train.prepare import Judgement, PreparedRun
    from apr.train.validation import ValidationResult

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


def first_record(
    run: "PreparedRun",
    gates: list[Gate],
    judgement: "Judgement",
    baselines: dict[str, float] | None,
) -> RunRecord:
    """The record of a run that is about to begin, every input named by hash; not yet written."""
    inputs, init = run.inputs, judgement.init
    held_out = run.whole_set
    unmeasured = NOT_ENDED
    return RunRecord.start(
        run.config.run_dir,
        config=run.config.model_dump(mode="json"),
        inputs={
            "tokenizer": {
                "path": str(run.config.tokenizer),
                "sha256": sha256_bytes(inputs.tokenizer.json_bytes),
                "fingerprint": inputs.tokenizer.fingerprint,
            },
            "train": [
                _shards_input(shards) | {"share": float(share)}
                for shards, share in zip(inputs.train, inputs.data.train.shares, strict=True)
            ],
            "val": _shards_input(inputs.val) if inputs.val else None,
            "init": inputs.init.as_record() if inputs.init else None,
        },
        architecture=asdict(inputs.architecture)
        | {"num_parameters": sum(parameter.numel() for parameter in run.model.parameters())},
        gates=[gate.as_record() for gate in gates],
        init_loss_nats=init.loss_nats if init else None,
        val={
            "source": inputs.data.val_source,
            "best_loss_nats": None,
            "best_loss_nats_reason": unmeasured,
            "last_loss_nats": None,
            "last_loss_nats_reason": unmeasured,
            "best_step": None,
            "bits_per_byte": None,
            "bits_per_byte_reason": unmeasured,
            "num_tokens": held_out.num_tokens,
            "text_bytes": held_out.text_bytes,
            "set_sha256": held_out.sha256,
            "init_bits_per_byte": init.bits_per_byte if init else None,
            **_standard_errors(init),
            "rows": None,
            "rows_reason": unmeasured,
        },
        baselines=baselines,
        unique_tokens=inputs.unique_train_tokens,
        tokens_by_source=tokens_by_source(inputs.data.train, None, reason=unmeasured),
        environment=run.acceleration.environment(),
    )


def tokens_by_source(
    mixture: Mixture, tokens_seen: Sequence[int] | None, *, reason: str | None = None
) -> list[dict[str, Any]]:
    """What was read of each source, in the order of `inputs.train`; or null, and why."""
    sources = mixture.sources
    return [
        {
            "unique_tokens": rows.stop - rows.start,
            "tokens_seen": seen,
            "tokens_seen_reason": reason,
            "epochs_over_data": None if seen is None else seen / rows.num_targets,
            "epochs_over_data_reason": reason,
        }
        for rows, seen in zip(sources, tokens_seen or [None] * len(sources), strict=True)
    ]


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


def require_unfinished(record: RunRecord, *, is_ended: bool) -> None:
    """Refuse to go on with a run that has ended well, and that no change has opened again.

    Refuses: run.finished.
    """
    outcome = record.data.get("outcome")
    if is_ended and outcome in ("target_met", "budget_exhausted", "early_stop"):
        raise Refusal(
            "run.finished",
            record.run_dir,
            found=f"the run has ended: {outcome}",
            expected="a run that was stopped, or one that is to go further",
            fix=f"start a new run with --init {record.run_dir / 'model.apr'}; one with --schedule "
            "constant, whose checkpoints are there, goes on with --resume RUN --num-steps N",
        )


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


def _standard_errors(init: "ValidationResult | None") -> dict[str, Any]:
    before = (
        init.standard_error_facts("init_")
        if init
        else {
            "init_standard_error_nats": None,
            "init_standard_error_nats_reason": "the fresh model could not be measured",
        }
    )
    at_the_end = {
        f"{which}_standard_error_nats{suffix}": value
        for which in ("best", "last")
        for suffix, value in (("", None), ("_reason", "the run has not ended"))
    }
    return before | at_the_end


def _shards_input(shards: ShardReader) -> dict[str, Any]:
    certificate = shards.manifest.certificate
    return {
        "path": str(shards.directory),
        "sha256": shards.manifest_sha256,
        "total_tokens": shards.manifest.total_tokens,
        "total_documents": shards.manifest.total_documents,
        "text_bytes": shards.manifest.text_bytes,
        "certificate": certificate.model_dump() if certificate else None,
    }


def _damaged(record: RunRecord, found: str) -> DamagedFile:
    return DamagedFile(
        "run.record-damaged",
        record.run_dir / "run.json",
        found=found,
        expected="the record of a run, as apr wrote it",
        fix="restore the file",
    )
