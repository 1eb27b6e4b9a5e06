"""preflight.gradients: the first gradient of every parameter, and whether fast paths agree."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from apr.model.transformer import Transformer
from apr.train.acceleration import Acceleration
from apr.train.batches import Batch
from apr.train.gates import Finding
from apr.train.loss import summed_loss
from apr.train.step import SummedLoss, accumulate

_LOWEST_COSINE = 0.98
_LARGEST_LOSS_DIFFERENCE = 0.01
# A gradient this much smaller than the largest is rounding noise in bf16.
_NEGLIGIBLE_NORM = 1e-5


def check_gradients(
    model: Transformer,
    batch: Batch,
    *,
    acceleration: Acceleration,
    accelerated_loss: SummedLoss,
    document_mask: bool,
) -> Finding:
    """Every parameter's first gradient is finite, not zero, and the one plain fp32 gives.

    The second half matters where precision is lower or kernels are compiled: the fast path is
    compared with eager fp32 on this device and these shapes before it is used.
    """
    fast = measure_gradients(model, batch, accelerated_loss, document_mask=document_mask)
    dead = sorted(
        name for name, norm in fast.norms.items() if not math.isfinite(norm) or norm == 0.0
    )
    if dead:
        return Finding(
            "FAIL",
            f"zero or not finite for {len(dead)} of {len(fast.norms)} parameters, first {dead[0]}",
            "every parameter finite and non-zero",
            "a parameter that gets no gradient never learns; check the initial weights",
        )
    found = f"{len(fast.norms)} of {len(fast.norms)} parameters finite and non-zero"
    expected = "every parameter finite and non-zero"
    if not acceleration.compiled and acceleration.compute_dtype is torch.float32:
        return Finding("PASS", found, expected)
    exact = fp32_gradients(model, batch, document_mask=document_mask)
    difference = abs(fast.loss_nats - exact.loss_nats)
    cosine, name = lowest_cosine(fast, exact)
    agrees = difference <= _LARGEST_LOSS_DIFFERENCE and cosine >= _LOWEST_COSINE
    return Finding(
        "PASS" if agrees else "FAIL",
        f"{found}; against eager fp32 the loss differs by {difference:.1e} nats, the lowest "
        f"cosine is {cosine:.5f} ({name})",
        f"{expected}; at most {_LARGEST_LOSS_DIFFERENCE:g} nats, at least {_LOWEST_COSINE:g}",
        "run with --no-compile --precision fp32, and report this",
    )


@dataclass(frozen=True)
class Gradients:
    """The gradient of a mean loss by parameter, zeros where there is none, and each one's norm."""

    loss_nats: float
    tensors: dict[str, Tensor]
    norms: dict[str, float]


def measure_gradients(
    model: Transformer, batch: Batch, loss_function: SummedLoss, *, document_mask: bool
) -> Gradients:
    """The gradient of one micro-batch; the model keeps none of it."""
    model.zero_grad(set_to_none=True)
    loss_nats = accumulate(
        model,
        [batch],
        num_tokens=batch.num_counted_tokens,
        document_mask=document_mask,
        summed_loss=loss_function,
    )
    tensors = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }
    model.zero_grad(set_to_none=True)
    norms = {name: float(gradient.double().norm()) for name, gradient in tensors.items()}
    return Gradients(loss_nats, tensors, norms)


def fp32_gradients(model: Transformer, batch: Batch, *, document_mask: bool) -> Gradients:
    """The same by eager kernels in fp32, whatever the run computes with."""
    chosen = model.compute_dtype
    model.compute_dtype = torch.float32
    try:
        return measure_gradients(model, batch, summed_loss, document_mask=document_mask)
    finally:
        model.compute_dtype = chosen


def lowest_cosine(fast: Gradients, exact: Gradients) -> tuple[float, str]:
    """The worst agreement of direction and length over all parameters that matter."""
    floor = _NEGLIGIBLE_NORM * max(exact.norms.values())
    worst, worst_name = 1.0, "none"
    for name, reference in exact.tensors.items():
        if exact.norms[name] < floor:
            continue
        dot = float((fast.tensors[name].double() * reference.double()).sum())
        # Divided by the larger squared length, so that a scaled gradient disagrees as well.
        agreement = dot / max(fast.norms[name], exact.norms[name]) ** 2
        if agreement < worst:
            worst, worst_name = agreement, name
    return worst, worst_name
