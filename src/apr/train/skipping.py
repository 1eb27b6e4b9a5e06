"""What a run keeps of a step that it did not apply."""

from pathlib import Path

from apr.train.origin import Origin
from apr.train.parts import whole_weights
from apr.train.prepare import PreparedRun
from apr.train.skipped_step import SkippedFacts, save_skipped_step
from apr.train.step import StepNotApplied
from apr.train.train_state import TrainState


def keep_skipped(
    directory: Path, run: PreparedRun, state: TrainState, refusal: StepNotApplied, origin: Origin
) -> None:
    """Have the first rank write the weights before the step, its batch, and what was found.

    Weights that are dealt out are put together for it, for which all ranks must ask at once.

    Refuses: as `save_skipped_step`.
    Writes: `directory`, atomically.
    """
    config, ranks, inputs = run.config, run.ranks, run.inputs
    weights = whole_weights(run.model, keep=ranks.is_first)
    if not ranks.is_first:
        return
    batch = run.order.batch(state.step)
    loss_nats, grad_norm = refusal.measured
    save_skipped_step(
        directory,
        inputs.architecture,
        weights,
        inputs.tokenizer,
        batch,
        SkippedFacts(
            step=state.step,
            loss_nats=loss_nats,
            grad_norm=grad_norm,
            rows=list(batch.row_indices),
            precision="bf16" if config.precision == "bf16" else "fp32",
            document_mask=config.document_mask,
            grad_accum=config.num_micro_batches * ranks.world_size,
            what=f"{refusal.id}: {refusal.found}",
        ),
        origin.chain(
            inputs,
            "before a step that was not applied",
            step=state.step,
            tokens_seen=state.tokens_seen,
        ),
    )
