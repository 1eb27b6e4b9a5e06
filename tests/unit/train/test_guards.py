"""What stops a step or a run, and what must not."""

import math

import numpy as np
import pytest
import torch
from tests.unit.train.batch_fixture import VOCAB_SIZE, tiny_model

from apr.errors import Refusal
from apr.train.guards import GuardState, require_converging, require_finite_weights
from apr.train.row_losses import RowLosses
from apr.train.validation import ValidationResult

OPTIONS = {"spike_factor": 20.0, "max_grad_norm": 1.0}


def held_out(loss_nats: float) -> ValidationResult:
    rows = RowLosses(np.array([loss_nats]), np.array([1]))
    return ValidationResult(loss_nats, None, 1, "0" * 64, rows)


def state_of(norms: list[float]) -> GuardState:
    state = GuardState()
    for norm in norms:
        state.applied(norm)
    return state


def test_a_spike_is_a_multiple_of_the_median_of_applied_steps() -> None:
    assert state_of([2.0] * 32).largest_grad_norm(**OPTIONS) == 40.0
    # One outlier among them does not move it, as it would a mean.
    assert state_of([2.0] * 31 + [1e9]).largest_grad_norm(**OPTIONS) == 40.0


def test_nothing_is_a_spike_before_enough_is_known_or_below_what_is_clipped_anyway() -> None:
    assert state_of([2.0] * 31).largest_grad_norm(**OPTIONS) == math.inf
    assert state_of([1e-4] * 32).largest_grad_norm(**OPTIONS) == 1.0


def test_old_norms_leave_the_window() -> None:
    state = state_of([9.0] * 300 + [2.0] * 128)
    assert state.largest_grad_norm(**OPTIONS) == 40.0
    assert len(state.grad_norms) == 128


def test_skips_are_counted_over_the_last_hundred_steps() -> None:
    state = GuardState()
    for step in (5, 50, 104, 105):
        state.skipped(step)
    assert state.num_skipped_lately(104) == 3
    assert state.num_skipped_lately(105) == 3
    assert state.num_skipped_lately(500) == 0


def test_f31_a_loss_that_runs_away_is_refused_and_one_that_does_not_passes() -> None:
    uniform = math.log(VOCAB_SIZE)

    def judge(loss: float, best: float | None) -> None:
        require_converging(held_out(loss), best_loss_nats=best, factor=2.0, vocab_size=VOCAB_SIZE)

    judge(1.99, 1.0)
    judge(2 * uniform - 0.01, None)
    for loss, best in ((2.01, 1.0), (2 * uniform + 0.01, None), (2 * uniform + 0.01, 100.0)):
        with pytest.raises(Refusal) as refused:
            judge(loss, best)
        assert refused.value.id == "train.diverged"
        assert refused.value.upstream_id == "GATE-TRAIN-005"
        assert f"{loss:.4f}" in refused.value.found


@pytest.mark.parametrize("planted", [float("nan"), float("inf"), float("-inf")])
def test_f28_a_weight_that_is_not_finite_is_named(planted: float) -> None:
    model = tiny_model()
    require_finite_weights(model, step=3)
    with torch.no_grad():
        model.get_parameter("model.layers.1.mlp.up_proj.weight")[2, 3] = planted
    with pytest.raises(Refusal) as refused:
        require_finite_weights(model, step=3)
    assert refused.value.where == "step 3, model.layers.1.mlp.up_proj.weight"
