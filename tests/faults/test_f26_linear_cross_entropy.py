"""F26, F25: the loss behind the head as `apr selftest` proves it, with planted faults.

The faults are those of published fused kernels: a gradient that is a little too long, ignored
targets that count, a mean where a sum is meant, one gradient for rows that weigh differently.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.train.batch_fixture import random_batch, tiny_model
from torch import Tensor

from apr.train.batches import IGNORED_TARGET, Batch
from apr.train.gates import Finding
from apr.train.linear_cross_entropy import linear_cross_entropy, loss_and_gradient
from apr.train.selftest.head import check_head

# Several chunks of a batch, the last of them short.
IN_CHUNKS = partial(linear_cross_entropy, chunk_tokens=7)
HeadLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def proof(dtype: torch.dtype, head_loss: HeadLoss, batch: Batch | None = None) -> Finding:
    model = tiny_model()
    model.compute_dtype = dtype
    return check_head(model, batch or random_batch(), head_loss=head_loss)


def _after(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> HeadLoss:
    """Chunks whose loss and gradient something changes."""

    def changed(logits_CV: Tensor, target_ids_C: Tensor) -> tuple[Tensor, Tensor]:
        return change(*loss_and_gradient(logits_CV, target_ids_C))

    return partial(IN_CHUNKS, loss_and_gradient=changed)


def _ignored_counts(x_BTD: Tensor, weight_VD: Tensor, target_ids_BT: Tensor) -> Tensor:
    return IN_CHUNKS(x_BTD, weight_VD, target_ids_BT.clamp_min(0))


def _mean_of_means(x_BTD: Tensor, weight_VD: Tensor, target_ids_BT: Tensor) -> Tensor:
    """Each row's mean, times the tokens that a row counts on average."""
    counts_B = (target_ids_BT != IGNORED_TARGET).sum(dim=1).clamp_min(1)
    nats_B = IN_CHUNKS(x_BTD, weight_VD, target_ids_BT)
    return nats_B / counts_B * counts_B.float().mean()


class _OneForAll(torch.autograd.Function):
    """A gradient of the head that takes the first row's factor for all, as a mean would."""

    @staticmethod
    def forward(ctx: Any, nats_B: Tensor) -> Tensor:
        return nats_B.clone()

    @staticmethod
    def backward(ctx: Any, row_grad_B: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return row_grad_B[:1].expand_as(row_grad_B)


def _one_factor(x_BTD: Tensor, weight_VD: Tensor, target_ids_BT: Tensor) -> Tensor:
    one: Any = _OneForAll.apply(IN_CHUNKS(x_BTD, weight_VD, target_ids_BT))
    return one


def _last_chunk_dropped(x_BTD: Tensor, weight_VD: Tensor, target_ids_BT: Tensor) -> Tensor:
    short_BT = target_ids_BT.clone()
    short_BT.view(-1)[-1] = IGNORED_TARGET
    return IN_CHUNKS(x_BTD, weight_VD, short_BT)


FAULTS: dict[str, HeadLoss] = {
    "gradient x 1.001": _after(lambda nats, gradient: (nats, gradient * 1.001)),
    "gradient x 0.999": _after(lambda nats, gradient: (nats, gradient * 0.999)),
    "value x 1.001": _after(lambda nats, gradient: (nats * 1.001, gradient)),
    "ignored targets count": _ignored_counts,
    "a mean of means": _mean_of_means,
    "one factor for every row": _one_factor,
    "last token dropped": _last_chunk_dropped,
    "the target's one left out": _after(lambda nats, gradient: (nats, gradient.clamp_min(0))),
}


@DTYPES
@pytest.mark.parametrize(("rows", "length"), [(4, 16), (1, 1), (3, 1), (1, 40)])
def test_a_loss_in_chunks_passes(dtype: torch.dtype, rows: int, length: int) -> None:
    for head_loss in (linear_cross_entropy, IN_CHUNKS):
        finding = proof(dtype, head_loss, random_batch(rows=rows, length=length))
        assert finding.verdict == "PASS", finding.found
        assert "5 choices of targets" in finding.found


def test_rows_that_count_unequally_pass() -> None:
    finding = proof(torch.bfloat16, IN_CHUNKS, random_batch(counted=[16, 1, 0, 7]))
    assert finding.verdict == "PASS", finding.found


@DTYPES
@pytest.mark.parametrize("planted", FAULTS)
def test_a_head_loss_that_is_something_else_fails(planted: str, dtype: torch.dtype) -> None:
    assert proof(dtype, FAULTS[planted]).verdict == "FAIL"


def test_a_batch_without_a_counted_target_proves_nothing() -> None:
    batch = random_batch(counted=[0, 0, 0, 0])
    assert np.all(batch.target_ids_BT == IGNORED_TARGET)
    assert proof(torch.float32, IN_CHUNKS, batch).verdict == "UNKNOWN"
