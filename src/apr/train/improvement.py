"""When a validation counts as an improvement: what best means, and what patience measures from."""

from apr.train.train_state import TrainState
from apr.train.validation import ValidationResult


def note_validation(state: TrainState, periodic: ValidationResult, *, min_delta: float) -> None:
    """Remember the lowest loss, and count validations without an improvement.

    The lowest loss is the best, by however little, and its checkpoint is kept. An improvement is
    a loss that lies `min_delta` standard errors, of this validation, below the last one that was.
    """
    lowest = state.best_loss_nats
    if lowest is None or periodic.loss_nats < lowest:
        state.best_step, state.best_loss_nats = state.step, periodic.loss_nats
    if state.improved_loss_nats is None:
        # A checkpoint of an earlier version knew one number for both.
        state.improved_loss_nats = lowest
    last, margin_nats = state.improved_loss_nats, _margin_nats(periodic, min_delta)
    if last is None or periodic.loss_nats < last - margin_nats:
        state.improved_loss_nats, state.stale_validations = periodic.loss_nats, 0
    else:
        state.stale_validations += 1


def _margin_nats(periodic: ValidationResult, min_delta: float) -> float:
    if min_delta == 0.0:
        return 0.0
    error_nats = periodic.standard_error_nats
    assert error_nats is not None, "prepare refuses a margin in standard errors of one row"
    return min_delta * error_nats
