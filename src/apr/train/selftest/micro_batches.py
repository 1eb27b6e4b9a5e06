"""Does a step weigh every token alike, however its rows are divided into micro-batches."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from apr.model.attention import plain
from apr.model.transformer import Transformer
from apr.train.batches import IGNORED_TARGET, Batch
from apr.train.config import TrainConfig
from apr.train.gates import Finding
from apr.train.selftest.cross_entropy import plain_nats
from apr.train.selftest.distances import farthest
from apr.train.selftest.overfit import Step
from apr.train.selftest.small_run import copy_of, size_of
from apr.train.step import SummedLoss

# Sums of fp32 in another order; measured distances are a tenth of these.
_LARGEST_LOSS = 1e-5
_LARGEST_DISTANCE = 1e-4
_ROWS = 4
_FIX = "losses must be summed, then divided by the counted tokens of the whole step; report this"


def check_micro_batches(
    model: Transformer,
    batch: Batch,
    config: TrainConfig,
    *,
    step: Step,
    summed_loss: SummedLoss,
) -> Finding:
    """One batch of B rows, k micro-batches of B/k, and the definition agree, in fp32.

    Compared are loss and gradient, as the batch is and with 3, many and no counted tokens in its
    rows. The definition is the summed cross-entropy divided by the number of counted tokens.
    """
    expected = (
        f"loss within {_LARGEST_LOSS:g}, every gradient within {_LARGEST_DISTANCE:g}, relative; a "
        "mean of means would differ"
    )
    num_rows = len(batch.row_indices)
    if num_rows < 2:
        return Finding("UNKNOWN", f"{size_of(batch)} cannot be divided", expected, _FIX)
    fp32 = copy_of(model)
    fp32.compute_dtype, fp32.attention = torch.float32, plain
    worst_loss, worst = 0.0, None
    for each in (batch, _unequal(batch)):
        whole = _step(fp32, [each], config, step=step, summed_loss=summed_loss)
        defined = plain_nats(fp32, each, document_mask=config.document_mask)
        reference = defined / each.num_counted_tokens
        worst_loss = _larger(worst_loss, abs(whole.loss_nats - reference) / reference)
        for num_parts in sorted({2, num_rows}):
            if num_rows % num_parts:
                continue
            parts = _step(fp32, each.split(num_parts), config, step=step, summed_loss=summed_loss)
            worst_loss = _larger(worst_loss, abs(parts.loss_nats - reference) / reference)
            distance = farthest(parts.gradients, whole.gradients)
            worst = distance if worst is None or not distance.value <= worst.value else worst
    if worst is None:
        return Finding("UNKNOWN", f"{size_of(batch)}: nothing was divided", expected, _FIX)
    agrees = worst_loss <= _LARGEST_LOSS and worst.value <= _LARGEST_DISTANCE
    return Finding(
        "PASS" if agrees else "FAIL",
        f"loss within {worst_loss:.1e}, gradients of {worst.num_compared} parameters within "
        f"{worst}, over {size_of(batch)}",
        expected,
        _FIX,
    )


def rows_to_divide(batch: Batch) -> Batch:
    """An even number of rows, the batch's own, repeated where it has fewer."""
    rows = np.resize(np.arange(len(batch.row_indices)), _ROWS)
    return replace(
        batch,
        input_ids_BT=batch.input_ids_BT[rows],
        target_ids_BT=batch.target_ids_BT[rows],
        document_numbers_BT=batch.document_numbers_BT[rows],
        row_indices=tuple(batch.row_indices[row] for row in rows),
    )


def _unequal(batch: Batch) -> Batch:
    """Only 3 counted targets in the first row, all in the second, none in the third."""
    targets_BT = batch.target_ids_BT.copy()
    targets_BT[0, 3:] = IGNORED_TARGET
    if len(targets_BT) > 2:
        targets_BT[2] = IGNORED_TARGET
    return replace(batch, target_ids_BT=targets_BT)


@dataclass(frozen=True)
class _Stepped:
    loss_nats: float
    gradients: dict[str, Tensor]


def _step(
    model: Transformer,
    micro_batches: list[Batch],
    config: TrainConfig,
    *,
    step: Step,
    summed_loss: SummedLoss,
) -> _Stepped:
    """A step at rate zero that clips nothing: its gradient is left on the parameters."""
    result = step(
        model,
        torch.optim.SGD(model.parameters(), lr=0.0),
        micro_batches,
        step=1,
        learning_rate=0.0,
        max_grad_norm=float("inf"),
        document_mask=config.document_mask,
        summed_loss=summed_loss,
    )
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in model.named_parameters()
    }
    return _Stepped(result.loss_nats, gradients)


def _larger(one: float, other: float) -> float:
    return one if other <= one else other
