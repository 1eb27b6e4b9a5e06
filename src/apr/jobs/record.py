"""What a run's record says at its beginning, every input named by hash."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from apr.files import sha256_bytes
from apr.shards.reader import ShardReader
from apr.train.data_plan import DataPlan
from apr.train.gates import Gate
from apr.train.predicted_rate import predicted_for_run
from apr.train.run_record import NOT_ENDED, RunRecord
from apr.train.unseen_text import why_not_unseen

if TYPE_CHECKING:
    # A record is also read by commands that compute nothing, and these should not load torch.
    from apr.train.prepare import Judgement, PreparedRun
    from apr.train.validation import ValidationResult


def first_record(
    run: "PreparedRun",
    gates: list[Gate],
    judgement: "Judgement",
    baselines: dict[str, float] | None,
) -> RunRecord:
    """The record of a run that is about to begin, every input named by hash; not yet written."""
    inputs, init = run.inputs, judgement.init
    held_out = run.whole_set
    unmeasured, seen_reason = NOT_ENDED, why_not_unseen(inputs)
    return RunRecord.start(
        run.config.run_dir,
        is_kept=run.ranks.is_first,
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
            "unseen_by_initial_model": None if seen_reason else True,
            "unseen_by_initial_model_reason": seen_reason,
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
        **inputs.data.copies.facts(),
        tokens_by_source=tokens_by_source(inputs.data, None, reason=unmeasured),
        environment=run.environment(),
        **_prediction(run),
    )


def tokens_by_source(
    data: DataPlan, tokens_seen: Sequence[int] | None, *, reason: str | None = None
) -> list[dict[str, Any]]:
    """What was read of each source, in the order of `inputs.train`; or null, and why.

    A source that holds every text twice is read for two epochs when it is read once.
    """
    sources, unique = data.train.sources, data.copies.unique_tokens_by_source
    return [
        {
            "unique_tokens": unique_tokens,
            "tokens_seen": seen,
            "tokens_seen_reason": reason,
            "epochs_over_data": None
            if seen is None
            else seen / rows.num_targets * ((rows.stop - rows.start) / unique_tokens),
            "epochs_over_data_reason": reason,
        }
        for rows, unique_tokens, seen in zip(
            sources, unique, tokens_seen or [None] * len(sources), strict=True
        )
    ]


def _prediction(run: "PreparedRun") -> dict[str, Any]:
    """What the roofline of a known card expects of the run; nothing elsewhere, or on several."""
    if run.ranks.are_many:
        return {}
    environment, config = run.acceleration.environment(), run.config
    predicted = predicted_for_run(
        environment["device_name"],
        run.inputs.architecture,
        precision=environment["precision"],
        sequence_length=config.seq_length,
        micro_batch_tokens=config.batch_tokens // config.num_micro_batches,
        batch_tokens=config.batch_tokens,
    )
    return {"predicted": predicted} if predicted else {}


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
