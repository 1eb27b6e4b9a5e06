"""When a validation counts as an improvement: in standard errors of that very validation."""

import numpy as np
import pytest

from apr.train.improvement import note_validation
from apr.train.row_losses import RowLosses
from apr.train.train_state import TrainState
from apr.train.validation import ValidationResult


def reading(loss_nats: float, *, error_nats: float = 0.1) -> ValidationResult:
    """A validation of two rows with this mean and this standard error."""
    rows = RowLosses(np.array([loss_nats - error_nats, loss_nats + error_nats]), np.array([1, 1]))
    assert rows.standard_error_nats == pytest.approx(error_nats)
    return ValidationResult(loss_nats, None, 2, "0" * 64, rows)


def after(
    losses: list[float], *, min_delta: float, error_nats: float = 0.1
) -> tuple[int | None, int]:
    """The best step and how many validations went by without an improvement."""
    state = TrainState()
    for step, loss_nats in enumerate(losses, start=1):
        state.step = step
        note_validation(state, reading(loss_nats, error_nats=error_nats), min_delta=min_delta)
    return state.best_step, state.stale_validations


def test_without_a_margin_whatever_is_lower_counts() -> None:
    assert after([3.0, 2.999999], min_delta=0.0) == (2, 0)
    assert after([3.0, 3.0], min_delta=0.0) == (1, 1)
    assert after([3.0, 3.1, 3.05], min_delta=0.0) == (1, 2)


@pytest.mark.parametrize("error_nats", [0.01, 0.1])
def test_a_margin_is_counted_in_standard_errors(error_nats: float) -> None:
    """The same 0.05 nats are five standard errors of one set and half of one of another."""
    options = {"min_delta": 2.0, "error_nats": error_nats}
    best_step, stale = after([3.0, 2.95], **options)
    assert best_step == 2
    assert stale == (0 if error_nats == 0.01 else 1)


def test_the_error_is_that_of_the_validation_at_hand() -> None:
    state = TrainState(step=1)
    note_validation(state, reading(3.0, error_nats=5.0), min_delta=2.0)
    note_validation(state, reading(2.9, error_nats=0.01), min_delta=2.0)
    assert state.stale_validations == 0


def test_small_improvements_add_up_until_they_count() -> None:
    assert after([3.0, 2.9, 2.81], min_delta=2.0) == (3, 2)
    assert after([3.0, 2.9, 2.81, 2.79], min_delta=2.0) == (4, 0)


def test_the_lowest_is_the_best_though_it_was_no_improvement() -> None:
    """Otherwise its checkpoint would be deleted, and a worse one shipped."""
    assert after([3.0, 2.95, 2.99, 3.0], min_delta=2.0) == (2, 3)


def test_a_checkpoint_of_an_earlier_version_goes_on_from_its_best() -> None:
    state = TrainState(step=9, best_step=7, best_loss_nats=3.0, stale_validations=2)
    note_validation(state, reading(2.95), min_delta=2.0)
    assert (state.best_step, state.stale_validations) == (9, 3)
    note_validation(state, reading(2.75), min_delta=2.0)
    assert state.stale_validations == 0
