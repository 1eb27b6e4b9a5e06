"""How a run ends: its last numbers, its best model as a file, and its word.

The word of success is written last, after the model file has been read back.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from apr.errors import DamagedFile, Interrupted
from apr.files import sha256_file
from apr.jobs.record import tokens_by_source
from apr.jobs.run_ceiling import utilization_facts
from apr.model.generate import generate
from apr.model.weights import end_of_text_ids, load_model, save_weights
from apr.report.page import write_report
from apr.train.checkpoint import checkpoint_dir, load_weights, read_state
from apr.train.held_out_file import ROWS_FILE, write_rows
from apr.train.parts import whole_weights
from apr.train.run_record import RunRecord, resume_command
from apr.train.train_state import Ending, TrainState
from apr.train.trainer import Trainer
from apr.train.validation import ValidationResult

_SAMPLE_TOKENS = 160
_SAMPLE_TEMPERATURE = 0.6


def end_run(trainer: Trainer, record: RunRecord, state: TrainState, outcome: Ending) -> None:
    """Measure the end, ship the best model, write the ending.

    Raises Interrupted, with the command that continues, when the run was stopped.
    Writes: RUN/model.apr, RUN/held-out.safetensors, RUN/run.json, RUN/report.html.
    """
    note_progress(trainer, record, state)
    if outcome == "interrupted":
        record.finish("interrupted", detail=f"stopped after step {state.step}")
        if record.is_kept:
            write_report(record.run_dir)
        raise Interrupted(
            f"interrupted after step {state.step} of {trainer.run.config.num_steps}; "
            "the run is saved",
            resume_command=resume_command(record.run_dir),
        )
    _ship_best(trainer, record, state)
    record.finish(outcome)
    if record.is_kept:
        write_report(record.run_dir)


def note_progress(trainer: Trainer, record: RunRecord, state: TrainState) -> None:
    """Put into the record how far a run has come; it is not written yet."""
    data = trainer.run.inputs.data
    num_skipped_steps = len(state.guard.skipped_steps)
    record.data |= {
        "num_applied_steps": state.step - num_skipped_steps,
        "num_skipped_steps": num_skipped_steps,
        "tokens_seen": state.tokens_seen,
        "epochs_over_data": state.tokens_seen / data.train.num_targets * data.copies.times_over,
        "tokens_by_source": tokens_by_source(data, state.tokens_by_source),
        "throughput": _throughput(trainer, record, state),
    }


def _ship_best(trainer: Trainer, record: RunRecord, state: TrainState) -> None:
    """Put the checkpoint with the lowest loss over the whole held-out set into RUN/model.apr."""
    # An earlier ending may have lost what is there again.
    record.data["val"].pop("lost_best", None)
    last = _whole_set(trainer, "validating the last step")
    best, best_step = last, state.step
    if state.best_step is not None and state.best_step != state.step:
        candidate = _candidate(trainer, record, state.best_step)
        if candidate is not None and candidate.loss_nats < last.loss_nats:
            best, best_step = candidate, state.best_step
        elif candidate is not None:
            _load_weights(trainer, state.step)
    record.data["val"] |= {
        "best_loss_nats": best.loss_nats,
        "best_loss_nats_reason": None,
        "last_loss_nats": last.loss_nats,
        "last_loss_nats_reason": None,
        **best.standard_error_facts("best_"),
        **last.standard_error_facts("last_"),
        "best_step": best_step,
        "bits_per_byte": best.bits_per_byte,
        "bits_per_byte_reason": None,
    }
    weights = whole_weights(trainer.run.model, keep=record.is_kept)
    if record.is_kept:
        _write_model(trainer, record, weights, best, best_step)


def _write_model(
    trainer: Trainer,
    record: RunRecord,
    weights: Mapping[str, Tensor],
    best: ValidationResult,
    best_step: int,
) -> None:
    """Write RUN/model.apr and the losses of its held-out rows; read the model back."""
    path = record.run_dir / "model.apr"
    tokens_seen = read_state(checkpoint_dir(record.run_dir, best_step)).tokens_seen
    provenance = trainer.origin.chain(
        trainer.run.inputs,
        "best checkpoint of a run",
        step=best_step,
        tokens_seen=tokens_seen,
        val_loss_nats=best.loss_nats,
        val_set_sha256=best.set_sha256,
        val_num_tokens=best.num_tokens,
    )
    save_weights(
        path,
        trainer.run.inputs.architecture,
        weights,
        tokenizer=trainer.run.inputs.tokenizer,
        provenance=provenance,
        carried=trainer.origin.carried,
        overwrite=True,
        progress=trainer.progress,
    )
    record.data["val"] |= _keep_rows(record.run_dir, best, best_step)
    record.data["samples"] = _read_back_and_sample(path, trainer, weights)
    record.data |= {"model": {"path": path.name, "sha256": sha256_file(path)}, "model_reason": None}


def _keep_rows(run_dir: Path, best: ValidationResult, step: int) -> dict[str, Any]:
    path = run_dir / ROWS_FILE
    sha256 = write_rows(path, best.rows, set_sha256=best.set_sha256, step=step)
    return {"rows": {"path": path.name, "sha256": sha256}, "rows_reason": None}


def _candidate(trainer: Trainer, record: RunRecord, best_step: int) -> ValidationResult | None:
    """The loss of the best checkpoint, whose weights are then loaded; None when it is damaged.

    The weights of the last step are sound, and a run that could never end would help nobody.
    """
    try:
        _load_weights(trainer, best_step)
    except DamagedFile as refusal:
        lost = f"the checkpoint of step {best_step}, the best so far, is lost: {refusal.found}"
        record.data["val"]["lost_best"] = lost
        trainer.notify(f"{lost}; the last step takes its place")
        return None
    return _whole_set(trainer, f"validating step {best_step}")


def _whole_set(trainer: Trainer, activity: str) -> ValidationResult:
    return trainer.run.validate(trainer.run.whole_set, activity=activity, progress=trainer.progress)


def _load_weights(trainer: Trainer, step: int) -> None:
    load_weights(checkpoint_dir(trainer.run_dir, step), trainer.run.model)


def _read_back_and_sample(
    path: Path, trainer: Trainer, weights: Mapping[str, Tensor]
) -> list[dict[str, Any]]:
    """Load the file just written, compare it with the weights in memory, let it speak."""
    loaded = load_model(path)
    for name, parameter in weights.items():
        if not parameter.detach().cpu().equal(loaded.model.get_parameter(name)):
            raise DamagedFile(
                "model.read-back",
                path,
                found=f"{name} differs from the weights in memory",
                expected="the weights that were written",
                fix="check the disk, then resume",
            )
    assert loaded.tokenizer is not None
    samples: list[dict[str, Any]] = []
    for number, prompt in enumerate(trainer.run.config.sample_prompts):
        written = generate(
            loaded.model,
            loaded.tokenizer.encode(prompt).tolist(),
            num_token_ids=loaded.tokenizer.vocab_size,
            max_new_tokens=_SAMPLE_TOKENS,
            temperature=_SAMPLE_TEMPERATURE,
            seed=trainer.run.config.seed + number,
            end_of_text_ids=end_of_text_ids(loaded),
        )
        text = loaded.tokenizer.decode(written.token_ids)
        samples.append({"prompt": prompt, "text": text, "stop_reason": written.stop_reason})
    return samples


def _throughput(trainer: Trainer, record: RunRecord, state: TrainState) -> dict[str, Any]:
    if state.tokens_seen == 0:
        return record.data["throughput"]
    tokens_per_s = state.tokens_seen / state.train_s
    return record.data["throughput"] | {
        **utilization_facts(trainer.run, record, tokens_per_s),
        "tokens_per_s": tokens_per_s,
        "tokens_per_s_reason": None,
        "tokens_per_s_end_to_end": state.tokens_seen / state.elapsed_s,
        "tokens_per_s_end_to_end_reason": None,
        "data_wait_fraction": state.data_s / state.elapsed_s,
        "data_wait_fraction_reason": None,
        "checkpoint_fraction": state.checkpoint_s / state.elapsed_s,
        "checkpoint_fraction_reason": None,
        "checkpoint_background_fraction": state.checkpoint_write_s / state.elapsed_s,
        "checkpoint_background_fraction_reason": None,
    }
