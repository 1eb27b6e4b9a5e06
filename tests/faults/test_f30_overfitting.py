"""F30: a batch learnt by heart as `apr selftest` proves it, with planted faults on either side.

A batch can be learnt by heart with the causal mask off: that fault is F20's
(test_f20_leak_proofs.py). A frozen layer and a rate that is not applied are F26's
(test_f26_proofs_of_the_step.py).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.train.batch_fixture import random_batch, tiny_model
from tests.unit.train.selftest.planted import config
from torch import Tensor

from apr.model.transformer import Transformer
from apr.train.batches import Batch
from apr.train.gates import Finding
from apr.train.loss import summed_loss
from apr.train.selftest.overfit import check_overfit
from apr.train.step import StepResult, train_step


def overfit(
    model: Transformer | None = None,
    batch: Batch | None = None,
    *,
    is_fresh: bool = True,
    **planted: Any,
) -> Finding:
    functions: dict[str, Any] = {"step": train_step, "summed_loss": summed_loss}
    return check_overfit(
        model or tiny_model(),
        batch or random_batch(rows=2),
        config(),
        is_fresh=is_fresh,
        **functions | planted,
    )


def test_a_sound_model_learns_a_batch_by_heart() -> None:
    model = tiny_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    finding = overfit(model)
    assert finding.verdict == "PASS", finding.found
    assert "2 rows of 16 tokens, 100% of the next tokens right" in finding.found
    assert all(p.equal(before[name]) for name, p in model.named_parameters())


def _shift(batch: Batch, by: int) -> Batch:
    """Targets that are `by` tokens further on in the stream than the next one."""
    ids = np.concatenate([batch.input_ids_BT, batch.target_ids_BT[:, -1:]], axis=1)
    return replace(batch, target_ids_BT=np.roll(ids, -1 - by, axis=1)[:, :-1])


@pytest.mark.parametrize("by", [-1, 1])
def test_targets_that_are_not_the_next_token_fail(by: int) -> None:
    batch = random_batch(rows=2)
    assert np.array_equal(_shift(batch, 0).target_ids_BT, batch.target_ids_BT)
    finding = overfit(batch=_shift(batch, by))
    assert finding.verdict == "FAIL", finding.found


def _constant(*_arguments: Any, **given: Any) -> StepResult:
    return StepResult(4.0, 1.0, given["learning_rate"], 1)


def _uphill(*arguments: Any, **given: Any) -> StepResult:
    given["summed_loss"] = _negated
    return train_step(*arguments, **given)


def _negated(*arguments: Any) -> Tensor:
    return -summed_loss(*arguments)


@pytest.mark.parametrize("step", [_constant, _uphill])
def test_steps_that_do_not_learn_fail(step: Callable[..., StepResult]) -> None:
    assert overfit(step=step).verdict == "FAIL"


def _saying(says: Callable[[float], float]) -> Callable[..., StepResult]:
    """A step that learns, and says another loss."""

    def step(*arguments: Any, **given: Any) -> StepResult:
        result = train_step(*arguments, **given)
        return replace(result, loss_nats=says(result.loss_nats))

    return step


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_a_loss_that_starts_off_its_band_fails(factor: float) -> None:
    finding = overfit(step=_saying(lambda loss_nats: factor * loss_nats))
    assert finding.verdict == "FAIL"
    assert "in 1 steps" in finding.found  # It is not learnt any further.


def test_a_loss_that_falls_below_zero_fails_though_the_batch_is_learnt() -> None:
    finding = overfit(step=_saying(lambda loss_nats: loss_nats if loss_nats > 0.11 else -0.01))
    assert finding.verdict == "FAIL"
    assert "to -0.0100 nats" in finding.found
    assert "100% of the next tokens right" in finding.found


def test_a_trained_model_may_start_below_ln_v_and_a_fresh_one_may_not() -> None:
    batch = random_batch(rows=2)
    model = tiny_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(30):
        given: dict[str, Any] = {"learning_rate": 1e-3, "max_grad_norm": 1.0, "step": 1}
        train_step(model, optimizer, [batch], document_mask=True, summed_loss=summed_loss, **given)
    assert overfit(model, batch).verdict == "FAIL"
    assert overfit(model, batch, is_fresh=False).verdict == "PASS"
