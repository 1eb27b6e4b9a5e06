"""Is the run's loss the cross-entropy of the next token, and its gradient that loss's own."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from apr.model.transformer import Transformer
from apr.train.batches import IGNORED_TARGET, Batch
from apr.train.gates import Finding
from apr.train.loss import masked_logits
from apr.train.selftest.distances import Bounds, farthest, scale_difference
from apr.train.selftest.small_run import size_of
from apr.train.step import SummedLoss, to_device

_FIX = "run with --no-compile --precision fp32, and report this"


# Fixed before any run: ten times what eager kernels show against themselves in another order.
_FP32 = Bounds(loss=1e-5, distance=1e-4, scale=1e-4)
_BF16 = Bounds(loss=2e-3, distance=0.1, scale=5e-3)


def check_cross_entropy(
    model: Transformer, batch: Batch, *, document_mask: bool, summed_loss: SummedLoss
) -> Finding:
    """The run's loss equals log-sum-exp minus the target's logit, computed plainly in fp32.

    Loss and the gradient of every parameter are compared with all targets counted, every third
    ignored, one counted, and none counted, where both must be zero. The logits of both sides are of
    the run's precision.

    Source: the definition; not torch's cross_entropy, which the run's loss uses.
    """
    bounds = _BF16 if model.compute_dtype is torch.bfloat16 else _FP32
    expected = f"{bounds}; zero where no target counts"
    worst = Bounds(0.0, 0.0, 0.0)
    where = "none"
    for case, counted_BT in _cases(batch).items():
        each = replace(
            batch, target_ids_BT=np.where(counted_BT, batch.target_ids_BT, IGNORED_TARGET)
        )
        nats, gradients = _measure(model, each, summed_loss, document_mask=document_mask)
        if each.num_counted_tokens == 0:
            if nats != 0.0 or any(bool((g != 0).any()) for g in gradients.values()):
                found = f"a loss of {nats} or a gradient that is not zero where no target counts"
                return Finding("FAIL", found, expected, _FIX)
            continue
        plain, exact = _measure(model, each, plain_loss, document_mask=document_mask)
        distance = farthest(gradients, exact)
        apart = Bounds(
            abs(nats - plain) / plain,
            distance.value,
            scale_difference((gradients[name], g) for name, g in exact.items()),
        )
        if not apart.within(bounds):
            return Finding(
                "FAIL",
                f"{case}: loss {nats:.6g} against {plain:.6g}, gradients apart by {distance}, "
                f"their length by {apart.scale:.1e}",
                expected,
                _FIX,
            )
        if distance.value >= worst.distance:
            worst, where = apart, str(distance)
    return Finding(
        "PASS",
        f"loss within {worst.loss:.1e}, gradients within {where}, over {size_of(batch)}, in 4 "
        "choices of counted targets",
        expected,
    )


def plain_loss(
    model: Transformer,
    input_ids_BT: Tensor,
    target_ids_BT: Tensor,
    document_numbers_BT: Tensor | None,
) -> Tensor:
    """The sum over counted targets of log-sum-exp minus the target's logit, in fp32."""
    logits_BTV = masked_logits(model, input_ids_BT, document_numbers_BT).float()
    counted_BT = target_ids_BT != IGNORED_TARGET
    targets_BT = target_ids_BT.where(counted_BT, 0)
    picked_BT = logits_BTV.gather(-1, targets_BT.unsqueeze(-1)).squeeze(-1)
    return (logits_BTV.logsumexp(-1) - picked_BT).where(counted_BT, 0.0).sum()


def plain_nats(model: Transformer, batch: Batch, *, document_mask: bool) -> float:
    """The same of a batch, without a gradient."""
    with torch.no_grad():
        return float(plain_loss(model, *to_device(batch, model, document_mask=document_mask)))


def _cases(batch: Batch) -> dict[str, np.ndarray]:
    counted_BT = batch.target_ids_BT != IGNORED_TARGET
    place_BT = np.arange(counted_BT.size).reshape(counted_BT.shape)
    first = int(np.flatnonzero(counted_BT)[0])
    return {
        "all counted": counted_BT,
        "every third ignored": counted_BT & (place_BT % 3 != 1),
        "one counted": place_BT == first,
        "none counted": np.zeros_like(counted_BT),
    }


def _measure(
    model: Transformer,
    batch: Batch,
    loss_function: Callable[..., Tensor],
    *,
    document_mask: bool,
) -> tuple[float, dict[str, Tensor]]:
    """The summed loss and its gradient; the model keeps none of it."""
    model.zero_grad(set_to_none=True)
    loss = loss_function(model, *to_device(batch, model, document_mask=document_mask)).sum()
    loss.backward()
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }
    model.zero_grad(set_to_none=True)
    return float(loss.detach()), gradients
