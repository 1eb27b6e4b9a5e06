"""Cross-entropy behind a linear head, chunk by chunk: all logits are never there at once.

A chunk of tokens is taken through the head, its loss and the gradients behind that loss are
computed, and its logits are forgotten. So nothing of the size of the logits waits for the backward
pass, and nothing is computed twice: three matrix products per chunk, as for plain logits.

The gradients are computed before it is known by what they will be multiplied, that is, as if each
row counted once. A gradient of the hidden states is of one row and scales exactly. That of the
head is a sum over all rows: it scales where one number has come back for all of them, as it does
in every training step, which divides the sum of the rows by their tokens. Where rows come back
with different numbers, both gradients are computed anew with these: right, and half as fast.

Shape letters: B rows, T positions, N = B*T, C tokens of a chunk, D hidden_size, V vocab_size.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

from apr.train.batches import IGNORED_TARGET
from apr.train.head_chunks import tokens_per_chunk

HeadLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""As `linear_cross_entropy`."""
LossAndGradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""As `loss_and_gradient`: the part between the matrix products, which a compiler can fuse."""


def loss_and_gradient(logits_CV: Tensor, target_ids_C: Tensor) -> tuple[Tensor, Tensor]:
    """Each token's loss in nats, and its gradient: the softmax, less one at the target.

    The softmax is computed in fp32 at least; the gradient is given in the precision of the logits,
    as the matrix products after it want it.
    """
    targets_C1 = target_ids_C.unsqueeze(1)
    if torch.compiler.is_compiling():
        return _fused(logits_CV, targets_C1)
    log_p_CV = torch.log_softmax(_at_least_fp32(logits_CV), dim=-1)
    nats_C = -log_p_CV.gather(1, targets_C1).squeeze(1)
    dtype = logits_CV.dtype
    del logits_CV
    p_CV = log_p_CV.exp_()
    minus_one_C1 = torch.full_like(targets_C1, -1, dtype=p_CV.dtype)
    return nats_C, p_CV.scatter_add_(1, targets_C1, minus_one_C1).to(dtype)


def _fused(logits_CV: Tensor, targets_C1: Tensor) -> tuple[Tensor, Tensor]:
    """The same for a compiler, which makes few passes of it, with one exponential per logit."""
    dtype, logits_CV = logits_CV.dtype, _at_least_fp32(logits_CV)
    largest_C1 = logits_CV.amax(dim=-1, keepdim=True)
    exp_CV = (logits_CV - largest_C1).exp()
    total_C1 = exp_CV.sum(dim=-1, keepdim=True)
    nats_C1 = (largest_C1 - logits_CV.gather(1, targets_C1)) + total_C1.log()
    p_CV = exp_CV / total_C1
    # A comparison fuses into the pass that makes the softmax, where a scatter ends it.
    classes_V = torch.arange(logits_CV.shape[1], device=logits_CV.device)
    grad_CV = torch.where(classes_V == targets_C1, p_CV - 1.0, p_CV)
    return nats_C1.squeeze(1), grad_CV.to(dtype)


def linear_cross_entropy(
    x_BTD: Tensor,
    weight_VD: Tensor,
    target_ids_BT: Tensor,
    *,
    chunk_tokens: int | None = None,
    loss_and_gradient: LossAndGradient = loss_and_gradient,
) -> Tensor:
    """Cross-entropy of `x @ weight.T`, summed over the counted targets of each row.

    The head is cast to the dtype of the hidden states once; its gradient is added up in its own
    precision, fp32 at least. Targets of IGNORED_TARGET add nothing and get a gradient of zero.
    Where no gradient is wanted none is computed. The same inputs give the same bits; how many
    tokens a chunk has, by default `tokens_per_chunk`, decides the order of the sums.

    Units: nats.
    Shapes: as annotated; the result is (B,), float32 at least.
    Source: torch.nn.functional.cross_entropy(reduction="none") of the logits in fp32.
    """
    if chunk_tokens is None:
        on_cpu = x_BTD.device.type == "cpu"
        chunk_tokens = tokens_per_chunk(len(weight_VD), on_cpu=on_cpu)
    if torch.is_grad_enabled() and (x_BTD.requires_grad or weight_VD.requires_grad):
        losses_B: Tensor = _LinearCrossEntropy.apply(  # pyright: ignore[reportAssignmentType]
            x_BTD, weight_VD, target_ids_BT, chunk_tokens, loss_and_gradient
        )
        return losses_B
    head_VD = weight_VD.to(x_BTD.dtype)
    # In fp32, and with a softmax beside them: three times what a chunk with gradients takes.
    chunk_tokens = max(1, chunk_tokens // 4)
    nats = [
        functional.cross_entropy(
            _at_least_fp32(x_CD @ head_VD.t()),
            target_ids_C,
            ignore_index=IGNORED_TARGET,
            reduction="none",
        )
        for x_CD, target_ids_C in zip(
            x_BTD.flatten(0, 1).split(chunk_tokens),
            target_ids_BT.flatten().split(chunk_tokens),
            strict=True,
        )
    ]
    return torch.cat(nats).view_as(target_ids_BT).sum(dim=1)


class _LinearCrossEntropy(torch.autograd.Function):
    """The gradients computed forward, and scaled backward."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BTD: Tensor,
        weight_VD: Tensor,
        target_ids_BT: Tensor,
        chunk_tokens: int,
        loss_and_gradient: LossAndGradient,
    ) -> Tensor:
        ctx.chunk_tokens, ctx.loss_and_gradient = chunk_tokens, loss_and_gradient
        once_B = torch.ones(x_BTD.shape[0], device=x_BTD.device, dtype=_accumulating(x_BTD.dtype))
        losses_B, x_grad, weight_grad = _pass(ctx, x_BTD, weight_VD, target_ids_BT, once_B)
        ctx.save_for_backward(x_BTD, weight_VD, target_ids_BT, x_grad, weight_grad)
        return losses_B

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, row_grad_B: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x_BTD, weight_VD, target_ids_BT, x_grad, weight_grad = ctx.saved_tensors
        if weight_grad is not None and not _is_one_number(row_grad_B):
            _, x_grad, weight_grad = _pass(ctx, x_BTD, weight_VD, target_ids_BT, row_grad_B)
            return x_grad, weight_grad, None, None, None
        # Not in place: a graph that is retained may be walked again.
        if x_grad is not None:
            x_grad = (x_grad * row_grad_B[:, None, None]).to(x_grad.dtype)
        if weight_grad is not None:
            weight_grad = weight_grad * row_grad_B[0]
        return x_grad, weight_grad, None, None, None


def _pass(
    ctx: FunctionCtx,
    x_BTD: Tensor,
    weight_VD: Tensor,
    target_ids_BT: Tensor,
    row_grad_B: Tensor,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss of each row, and the gradients wanted where the rows' losses have `row_grad_B`."""
    step: LossAndGradient = ctx.loss_and_gradient  # pyright: ignore[reportAttributeAccessIssue]
    size: int = ctx.chunk_tokens  # pyright: ignore[reportAttributeAccessIssue]
    x_wanted, weight_wanted, *_ = ctx.needs_input_grad  # pyright: ignore[reportAttributeAccessIssue]
    counted_BT = target_ids_BT != IGNORED_TARGET
    targets_N = target_ids_BT.where(counted_BT, 0).flatten()
    factors_N1 = (row_grad_B.unsqueeze(1) * counted_BT).view(-1, 1)
    x_ND, head_VD = x_BTD.flatten(0, 1), weight_VD.to(x_BTD.dtype)
    nats_N = torch.empty(len(targets_N), device=x_ND.device, dtype=factors_N1.dtype)
    x_grad_ND = torch.empty_like(x_ND) if x_wanted else None
    dtype = _accumulating(weight_VD.dtype)
    weight_grad_VD = torch.zeros_like(weight_VD, dtype=dtype) if weight_wanted else None
    for at in range(0, len(targets_N), size):
        here = slice(at, at + size)
        nats_N[here], grad_CV = step(x_ND[here] @ head_VD.t(), targets_N[here])
        # Rows are weighted where they are D wide, not V.
        if x_grad_ND is not None:
            torch.mm(grad_CV, head_VD, out=x_grad_ND[here]).mul_(factors_N1[here])
        if weight_grad_VD is not None:
            weighted_CD = (x_ND[here] * factors_N1[here]).to(x_ND.dtype)
            _add_product(weight_grad_VD, grad_CV.t(), weighted_CD)
        del grad_CV
    losses_B = nats_N.view_as(target_ids_BT).where(counted_BT, 0.0).sum(dim=1)
    return (
        losses_B,
        None if x_grad_ND is None else x_grad_ND.view_as(x_BTD),
        None if weight_grad_VD is None else weight_grad_VD.to(weight_VD.dtype),
    )


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)


def _is_one_number(row_grad_B: Tensor) -> bool:
    # A sum gives back one number spread over the rows: known without waiting for the device.
    if row_grad_B.numel() == 1 or row_grad_B.stride(0) == 0:
        return True
    return bool((row_grad_B == row_grad_B[0]).all())


def _accumulating(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _at_least_fp32(values: Tensor) -> Tensor:
    return values.to(_accumulating(values.dtype))
