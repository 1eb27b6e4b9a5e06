"""What a validation decides: whether the run has run away, is the best so far, or has ended."""

from apr.progress import Report
from apr.train.guards import require_converging
from apr.train.improvement import note_validation
from apr.train.prepare import PreparedRun
from apr.train.train_state import TrainState
from apr.train.validation import ValidationResult


def judge_validation(
    run: PreparedRun, state: TrainState, periodic: ValidationResult, *, progress: Report
) -> None:
    """Put into the state what the held-out loss after its step says about the run.

    Refuses: train.diverged, and what a validation of the whole set refuses.
    """
    config = run.config
    known = [each for each in (state.best_loss_nats, state.start_loss_nats) if each is not None]
    require_converging(
        periodic,
        best_loss_nats=min(known, default=None),
        factor=config.divergence_factor,
        vocab_size=run.inputs.architecture.vocab_size,
    )
    note_validation(state, periodic, min_delta=config.min_delta)
    if _target_reached(run, periodic, progress):
        state.ended = "target_met"
    elif state.step == config.num_steps:
        state.ended = "budget_exhausted"
    elif state.stale_validations >= config.patience:
        state.ended = "early_stop"


def _target_reached(run: PreparedRun, periodic: ValidationResult, progress: Report) -> bool:
    """A target met on the subset counts only when the whole set agrees."""
    target = run.config.target_val_loss
    if target is None or periodic.loss_nats > target:
        return False
    if periodic.set_sha256 == run.whole_set.sha256:
        return True
    whole = run.validate(run.whole_set, activity="confirming the target", progress=progress)
    return whole.loss_nats <= target
