"""Does the model learn what it is shown: one batch by heart, and the next token of it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from apr.model.transformer import Transformer
from apr.progress import Progress, Report, silent
from apr.train.batches import IGNORED_TARGET, Batch
from apr.train.config import TrainConfig
from apr.train.gates import Finding
from apr.train.optimizer import build_optimizer
from apr.train.selftest.small_run import copy_of, size_of
from apr.train.step import StepResult, SummedLoss

_LARGEST_FRACTION = 0.05
_LEAST_RIGHT = 0.9
_MOST_STEPS = 300
_LEARNING_RATE = 1e-3
_WARMUP_STEPS = 10
_BELOW_UNIFORM_NATS = 0.5

OptimizerOf = Callable[[Transformer, TrainConfig], torch.optim.Optimizer]


class Step(Protocol):
    """`apr.train.step.train_step`, or one with a planted fault."""

    def __call__(
        self,
        model: Transformer,
        optimizer: torch.optim.Optimizer,
        micro_batches: list[Batch],
        *,
        step: int,
        learning_rate: float,
        max_grad_norm: float,
        document_mask: bool,
        summed_loss: SummedLoss,
    ) -> StepResult:
        """Update once."""
        ...


def check_overfit(
    model: Transformer,
    batch: Batch,
    config: TrainConfig,
    *,
    is_fresh: bool,
    step: Step,
    summed_loss: SummedLoss,
    progress: Report = silent,
) -> Finding:
    """A copy of the model learns one small batch by heart in bounded steps.

    Two-sided: the loss starts where knowing nothing puts it, and ends between 0 and a twentieth of
    that. And judged from outside: by plain logits, without the batch's targets, the likeliest next
    token is the row's own, which a model that learnt other targets does not say.

    Each row counts as one document, so that all that comes before a token decides it.
    """
    uniform_nats = math.log(model.architecture.vocab_size)
    lower = uniform_nats - _BELOW_UNIFORM_NATS if is_fresh else 0.0
    upper = uniform_nats + 0.5 + 0.5 * 0.02**2 * model.architecture.hidden_size
    expected = (
        f"a loss that starts within {lower:.2f} to {upper:.2f} (ln V is {uniform_nats:.2f}), falls "
        f"below {_LARGEST_FRACTION:.0%} of it in {_MOST_STEPS} steps and is not negative, and "
        f"{_LEAST_RIGHT:.0%} of the next tokens right"
    )
    batch = replace(batch, document_numbers_BT=np.zeros_like(batch.document_numbers_BT))
    learnt = copy_of(model)
    losses: list[float] = []
    steps = _learning(learnt, batch, config, step=step, summed_loss=summed_loss)
    for number, loss_nats in enumerate(steps, start=1):
        losses.append(loss_nats)
        progress(Progress("overfitting one batch", number, None, "steps", f"{loss_nats:.3f} nats"))
        # Deeper than asked for, so that the last few tokens are learnt as well.
        is_learnt = loss_nats <= 0.5 * _LARGEST_FRACTION * losses[0]
        if is_learnt or not lower <= losses[0] <= upper:
            break
    right = _share_right(learnt, batch)
    passed = (
        lower <= losses[0] <= upper
        and 0.0 <= losses[-1] <= _LARGEST_FRACTION * losses[0]
        and right >= _LEAST_RIGHT
    )
    return Finding(
        "PASS" if passed else "FAIL",
        f"{losses[0]:.4f} to {losses[-1]:.4f} nats in {len(losses)} steps over {size_of(batch)}, "
        f"{right:.0%} of the next tokens right",
        expected,
        "the targets, the mask or the update are not what they should be; report this",
    )


def _learning(
    model: Transformer,
    batch: Batch,
    config: TrainConfig,
    *,
    step: Step,
    summed_loss: SummedLoss,
) -> Iterator[float]:
    optimizer = build_optimizer(model, config)
    for number in range(1, _MOST_STEPS + 1):
        result = step(
            model,
            optimizer,
            [batch],
            step=number,
            learning_rate=_LEARNING_RATE * min(1.0, number / _WARMUP_STEPS),
            max_grad_norm=config.max_grad_norm,
            document_mask=config.document_mask,
            summed_loss=summed_loss,
        )
        yield result.loss_nats


def _share_right(model: Transformer, batch: Batch) -> float:
    """How often the likeliest token after a prefix of a row is the one that follows in it."""
    ids_BT = torch.from_numpy(np.ascontiguousarray(batch.input_ids_BT))
    ids_BT = ids_BT.to(model.head_weight.device)
    with torch.no_grad():
        said_BT = model(ids_BT)[:, :-1].argmax(-1)
    # The fill of a short row was never a target, and its beginning was.
    counted_BT = torch.from_numpy(batch.target_ids_BT[:, :-1] != IGNORED_TARGET)
    right_BT = (said_BT == ids_BT[:, 1:]).cpu()
    return float(right_BT[counted_BT].double().mean())
