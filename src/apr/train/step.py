"""One optimizer update, and nothing else: no clock, no file, no log.

The step function of a run is this one; everything that watches it stands outside.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from apr.errors import Refusal
from apr.model.transformer import Transformer
from apr.train.batches import Batch
from apr.train.optimizer import applied_learning_rate, moments, set_learning_rate
from apr.train.parts import whole
from apr.train.ranks import ALONE, Ranks

SummedLoss = Callable[[Transformer, Tensor, Tensor, Tensor | None], Tensor]
"""As `apr.train.loss.summed_loss`: nats per row, (B,)."""
MaskedLogits = Callable[[Transformer, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class GradientExchange:
    """How the gradients of a step become those of all ranks.

    Where there are several, a backward pass averages the gradients over them, except within
    `local`: a step does that once, at its last micro-batch.
    """

    ranks: Ranks = ALONE
    local: Callable[[], AbstractContextManager[None]] = nullcontext
    settle: Callable[[], None] = lambda: None
    """Let go of what a forward pass has gathered, when no backward pass follows it."""
    keeps_gradients: bool = False
    """Whether gradients stay where they are exchanged from, and are zeroed there."""


NO_EXCHANGE = GradientExchange()


@dataclass(frozen=True)
class StepResult:
    """What one update measured; `grad_norm` is the global norm before clipping."""

    loss_nats: float
    grad_norm: float
    lr_applied: float
    num_tokens: int


class StepNotApplied(Refusal):
    """A batch whose loss, gradient or update is not finite, or a spike; nothing has changed.

    `measured` are the loss in nats and the gradient norm, whatever they were.
    """

    measured: tuple[float, float] = (math.nan, math.nan)


def train_step(
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[Batch],
    *,
    step: int,
    learning_rate: float,
    max_grad_norm: float,
    largest_grad_norm: float = math.inf,
    document_mask: bool,
    summed_loss: SummedLoss,
    exchange: GradientExchange = NO_EXCHANGE,
) -> StepResult:
    """Accumulate the gradient of all micro-batches, check it, clip it, update once.

    Every counted token of the step weighs the same, however micro-batches and ranks divide them;
    the micro-batches are this rank's. A gradient longer than `largest_grad_norm` is a spike.

    Refuses: train.no-counted-tokens; train.non-finite and train.gradient-spike, before anything
    has changed.
    Source: clipping as torch.nn.utils.clip_grad_norm_, by the global 2-norm.
    """
    ranks = exchange.ranks
    here = sum(batch.num_counted_tokens for batch in micro_batches)
    num_tokens = int(ranks.total(np.array([here]))[0])
    if num_tokens == 0:
        raise Refusal(
            "train.no-counted-tokens",
            f"step {step}",
            found="a batch without a counted target",
            expected="at least one",
            fix="check the shards with apr tokenize encode-corpus",
        )
    set_learning_rate(optimizer, learning_rate)
    optimizer.zero_grad(set_to_none=not exchange.keeps_gradients)
    losses = accumulate(
        model,
        micro_batches,
        num_tokens=num_tokens,
        document_mask=document_mask,
        summed_loss=summed_loss,
        exchange=exchange,
    )
    norm = _norm([p.grad for p in model.parameters() if p.grad is not None])
    # With a finite clipped gradient an update is finite exactly when rate and moments are.
    kept = moments(optimizer)
    # Read together: each time that a device is waited for, nothing is queued for it meanwhile.
    measured = torch.stack([*losses, norm, _norm(kept) if kept else torch.zeros_like(norm)])
    *loss_of_rank, grad_norm, moments_norm = measured.cpu().tolist()
    loss_nats = float(ranks.total(np.array([math.fsum(loss_of_rank)]))[0])
    where = _where(step, micro_batches)
    _require_finite(
        where, optimizer, loss_nats=loss_nats, grad_norm=grad_norm, moments_norm=moments_norm
    )
    _require_no_spike(where, loss_nats, grad_norm, largest_grad_norm)
    torch.nn.utils.clip_grads_with_norm_(model.parameters(), max_grad_norm, norm)
    optimizer.step()
    return StepResult(loss_nats, grad_norm, applied_learning_rate(optimizer), num_tokens)


def accumulate(
    model: Transformer,
    micro_batches: Sequence[Batch],
    *,
    num_tokens: int,
    document_mask: bool,
    summed_loss: SummedLoss,
    exchange: GradientExchange = NO_EXCHANGE,
) -> list[Tensor]:
    """Add the gradient of the mean loss over `num_tokens` to the parameters.

    Returns the part of that loss of each micro-batch, which the device may still be computing; the
    gradient is that of all ranks.

    Units: nats per counted token.
    """
    losses: list[Tensor] = []
    for number, batch in enumerate(micro_batches, start=1):
        inputs, targets, documents = to_device(batch, model, document_mask=document_mask)
        with nullcontext() if number == len(micro_batches) else exchange.local():
            loss = summed_loss(model, inputs, targets, documents).sum() / num_tokens
            # The exchange averages over ranks, and what is wanted is the sum.
            (loss * exchange.ranks.world_size).backward()
        losses.append(loss.detach())
    return losses


def accumulate_batch(
    model: Transformer,
    batch: Batch,
    summed_loss: SummedLoss,
    *,
    document_mask: bool,
    num_parts: int = 1,
) -> float:
    """Leave the gradient of a batch's mean loss on the parameters, and nothing that was there.

    Returns that loss; the batch is computed in so many parts.

    Units: nats per counted token.
    """
    model.zero_grad(set_to_none=True)
    losses = accumulate(
        model,
        batch.split(num_parts),
        num_tokens=batch.num_counted_tokens,
        document_mask=document_mask,
        summed_loss=summed_loss,
    )
    return math.fsum(torch.stack(losses).cpu().tolist())


def to_device(
    batch: Batch, model: Transformer, *, document_mask: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """A batch's arrays as tensors where the model is; documents only when they mask."""
    device = model.head_weight.device
    documents = (
        torch.from_numpy(batch.document_numbers_BT).to(device, non_blocking=True)
        if document_mask
        else None
    )
    return (
        torch.from_numpy(batch.input_ids_BT).to(device, non_blocking=True),
        torch.from_numpy(batch.target_ids_BT).to(device, non_blocking=True),
        documents,
    )


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    return whole(torch.nn.utils.get_total_norm(tensors))


def _where(step: int, micro_batches: Sequence[Batch]) -> str:
    rows = [row for batch in micro_batches for row in batch.row_indices]
    return f"step {step}, rows {', '.join(map(str, rows))}"


def _require_finite(
    where: str,
    optimizer: torch.optim.Optimizer,
    *,
    loss_nats: float,
    grad_norm: float,
    moments_norm: float,
) -> None:
    rate = applied_learning_rate(optimizer)
    if all(map(math.isfinite, (loss_nats, grad_norm, moments_norm, rate))):
        return
    refusal = StepNotApplied(
        "train.non-finite",
        where,
        found=f"loss {loss_nats}, gradient norm {grad_norm}, norm of the optimizer's moments "
        f"{moments_norm}, rate {rate}",
        expected="finite values; the update was not applied",
        fix="lower --lr, raise --warmup-steps, or look at these rows of the training shards",
        upstream_id="INV-TRAIN-007",
    )
    refusal.measured = (loss_nats, grad_norm)
    raise refusal


def _require_no_spike(
    where: str, loss_nats: float, grad_norm: float, largest_grad_norm: float
) -> None:
    if grad_norm <= largest_grad_norm:
        return
    refusal = StepNotApplied(
        "train.gradient-spike",
        where,
        found=f"a gradient norm of {grad_norm:.4g}, loss {loss_nats:.4f}",
        expected=f"at most {largest_grad_norm:.4g}; the update was not applied",
        fix="look at these rows of the training shards, lower --lr, or raise --spike-factor",
    )
    refusal.measured = (loss_nats, grad_norm)
    raise refusal
