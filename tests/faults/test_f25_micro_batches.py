"""F25: the proof of `apr selftest` that a step weighs every token alike, against planted faults."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.unit.train.batch_fixture import random_batch, tiny_model
from tests.unit.train.selftest.planted import config
from torch import Tensor

from apr.train.batches import Batch
from apr.train.gates import Finding
from apr.train.loss import summed_loss
from apr.train.selftest.micro_batches import check_micro_batches, rows_to_divide
from apr.train.step import StepResult, train_step


def verdict(**planted: Any) -> Finding:
    functions: dict[str, Any] = {"step": train_step, "summed_loss": summed_loss}
    return check_micro_batches(tiny_model(), random_batch(), config(), **functions | planted)


def test_sound_weighting_passes() -> None:
    finding = verdict()
    assert finding.verdict == "PASS", finding.found
    assert "20 parameters" in finding.found


def _mean_of_means(
    model: Any, optimizer: Any, micro_batches: list[Batch], **given: Any
) -> StepResult:
    """Each micro-batch's mean, and the mean of those: right for one, wrong for several."""
    shares = [batch.num_counted_tokens * len(micro_batches) for batch in micro_batches]
    total = sum(batch.num_counted_tokens for batch in micro_batches)
    given["summed_loss"] = _scaled_by([total / max(1, share) for share in shares])
    return train_step(model, optimizer, micro_batches, **given)


def _scaled_by(factors: list[float]) -> Callable[..., Tensor]:
    remaining = list(factors)
    return lambda *arguments: summed_loss(*arguments) * remaining.pop(0)


def _last_part_lost(
    model: Any, optimizer: Any, micro_batches: list[Batch], **given: Any
) -> StepResult:
    kept = micro_batches[:-1] or micro_batches
    return train_step(model, optimizer, kept, **given)


def _gradient_of_the_last_part(
    model: Any, optimizer: Any, micro_batches: list[Batch], **given: Any
) -> StepResult:
    """The loss is added up, the gradient is not."""
    last = micro_batches[-1]
    share = last.num_counted_tokens / sum(batch.num_counted_tokens for batch in micro_batches)
    result = train_step(model, optimizer, micro_batches, **given)
    train_step(model, optimizer, [last], **given)
    for parameter in model.parameters():
        parameter.grad.mul_(share)
    return result


def _mean_over_all_positions(
    model: Any, optimizer: Any, micro_batches: list[Batch], **given: Any
) -> StepResult:
    """Divided by every position, ignored or not: consistent, and not the definition."""
    counted = sum(batch.num_counted_tokens for batch in micro_batches)
    every = sum(batch.target_ids_BT.size for batch in micro_batches)
    given["summed_loss"] = lambda *arguments: summed_loss(*arguments) * (counted / every)
    return train_step(model, optimizer, micro_batches, **given)


@pytest.mark.parametrize(
    "step",
    [_mean_of_means, _last_part_lost, _gradient_of_the_last_part, _mean_over_all_positions],
)
def test_a_step_that_weighs_tokens_otherwise_fails(step: Callable[..., StepResult]) -> None:
    if step is _gradient_of_the_last_part:
        # A part without a counted token is refused before it can be got wrong.
        whole = random_batch(counted=[16, 16, 16, 5])
        finding = check_micro_batches(
            tiny_model(), whole, config(), step=step, summed_loss=summed_loss
        )
    else:
        finding = verdict(step=step)
    assert finding.verdict == "FAIL", finding.found


def test_a_loss_that_is_a_mean_fails() -> None:
    def mean(*arguments: Any) -> Tensor:
        return summed_loss(*arguments) / (arguments[2] >= 0).sum().clamp_min(1)

    assert verdict(summed_loss=mean).verdict == "FAIL"


def test_it_is_proven_in_fp32_whatever_the_run_computes_in() -> None:
    model = tiny_model()
    model.compute_dtype = torch.bfloat16
    functions: dict[str, Any] = {"step": train_step, "summed_loss": summed_loss}
    assert check_micro_batches(model, random_batch(), config(), **functions).verdict == "PASS"
    assert model.compute_dtype is torch.bfloat16


def test_one_row_cannot_be_divided_and_is_repeated() -> None:
    one = random_batch(rows=1)
    functions: dict[str, Any] = {"step": train_step, "summed_loss": summed_loss}
    assert check_micro_batches(tiny_model(), one, config(), **functions).verdict == "UNKNOWN"
    rows = rows_to_divide(one)
    assert rows.row_indices == (0, 0, 0, 0)
    assert check_micro_batches(tiny_model(), rows, config(), **functions).verdict == "PASS"
    assert rows_to_divide(replace(random_batch(rows=6))).row_indices == (0, 1, 2, 3)
