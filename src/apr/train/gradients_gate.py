"""preflight.gradients: the first gradient of every parameter, and whether fast paths agree."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from apr.model.attention import plain
from apr.model.switches import in_plain_fp32
from apr.model.transformer import Transformer
from apr.train.attention_check import compare_attention
from apr.train.batches import Batch
from apr.train.gates import Finding
from apr.train.loss import plain_summed_loss
from apr.train.step import SummedLoss, accumulate_batch

_LEAST_OVERALL, _LEAST_OF_ONE = 0.98, 0.9
_LARGEST_LOSS_DIFFERENCE = 0.01
# A gradient this much smaller than the largest is rounding noise in bf16.
_NEGLIGIBLE_NORM = 1e-5


def check_gradients(
    model: Transformer,
    batch: Batch,
    *,
    accelerated_loss: SummedLoss,
    document_mask: bool,
    measure: "Measure | None" = None,
) -> Finding:
    """Every parameter's first gradient is finite, not zero, and the one plain fp32 gives.

    The fast path, the loss in chunks first of all, is compared with eager kernels, plain attention
    and torch's cross-entropy in fp32, on this device and these shapes, before it is used.
    `measure` stands in for `measure_gradients`, for a model whose gradients are nowhere whole; its
    fp32 takes no more room than it must.
    """
    fast = (measure or measure_gradients)(
        model, batch, accelerated_loss, document_mask=document_mask
    )
    # Both before either is judged: ranks that gather a model together compute as often.
    exact = fp32_gradients(model, batch, document_mask=document_mask, measure=measure)
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
    is_plain = model.attention is plain
    difference = abs(fast.loss_nats - exact.loss_nats)
    agreed = agreement(fast, exact)
    agrees = difference <= _LARGEST_LOSS_DIFFERENCE and agreed.is_close
    found += f"; against eager fp32 the loss differs by {difference:.1e} nats, {agreed}"
    expected += f"; at most {_LARGEST_LOSS_DIFFERENCE:g} nats, {LEAST_AGREEMENT}"
    if not is_plain:
        attention = compare_attention(model, batch, document_mask=document_mask)
        agrees = agrees and attention.is_close
        found, expected = f"{found}; {attention}", f"{expected}; attention {attention.limit:.1e}"
    return Finding(
        "PASS" if agrees else "FAIL",
        found,
        expected,
        "run with --no-compile --precision fp32 --attention plain, and report this",
    )


@dataclass(frozen=True)
class Gradients:
    """The gradient of a mean loss by parameter, zeros where there is none, and each one's norm."""

    loss_nats: float
    tensors: dict[str, Tensor]
    norms: dict[str, float]


class Measure(Protocol):
    """As `measure_gradients`."""

    def __call__(
        self,
        model: Transformer,
        batch: Batch,
        loss_function: SummedLoss,
        *,
        document_mask: bool,
        num_parts: int = 1,
    ) -> Gradients: ...


def measure_gradients(
    model: Transformer,
    batch: Batch,
    loss_function: SummedLoss,
    *,
    document_mask: bool,
    num_parts: int = 1,
) -> Gradients:
    """The gradient of one micro-batch, computed in so many parts; the model keeps none of it."""
    loss_nats = accumulate_batch(
        model, batch, loss_function, document_mask=document_mask, num_parts=num_parts
    )
    tensors = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }
    model.zero_grad(set_to_none=True)
    norms = {name: float(gradient.double().norm()) for name, gradient in tensors.items()}
    return Gradients(loss_nats, tensors, norms)


def fp32_gradients(
    model: Transformer, batch: Batch, *, document_mask: bool, measure: Measure | None = None
) -> Gradients:
    """The same by eager kernels, plain attention and torch's cross-entropy in fp32.

    Row by row, so that the scores of one row in one layer, and its logits, are all that is held.
    """
    with in_plain_fp32(model, recomputes_blocks=None if measure is None else True):
        return (measure or measure_gradients)(
            model,
            batch,
            plain_summed_loss,
            document_mask=document_mask,
            num_parts=len(batch.row_indices),
        )


@dataclass(frozen=True)
class Agreement:
    """How far gradients have direction and length in common with exact ones; 1 is all of it."""

    overall: float
    lowest: float
    name: str
    """The parameter that agrees least, of those that matter."""

    @property
    def is_close(self) -> bool:
        """Whether all of it agrees, and no single parameter is something else.

        One matrix of a trained model may keep little of its gradient in bf16, where large terms
        cancel; all of them together do not.
        """
        return self.overall >= _LEAST_OVERALL and self.lowest >= _LEAST_OF_ONE

    def __str__(self) -> str:
        """As a verdict says it."""
        return f"cosine {self.overall:.5f} over all, the lowest {self.lowest:.5f} ({self.name})"


LEAST_AGREEMENT = (
    f"cosine at least {_LEAST_OVERALL:g} over all, {_LEAST_OF_ONE:g} of each parameter"
)


def agreement(fast: Gradients, exact: Gradients) -> Agreement:
    """Compare two gradients, of each parameter that matters and of all together."""
    floor = _NEGLIGIBLE_NORM * max(exact.norms.values())
    lowest, lowest_name, total_dot = 1.0, "none", 0.0
    for name, reference in exact.tensors.items():
        dot = float((fast.tensors[name].double() * reference.double()).sum())
        total_dot += dot
        if exact.norms[name] < floor:
            continue
        # Divided by the larger squared length, so that a scaled gradient disagrees as well.
        share = dot / max(fast.norms[name], exact.norms[name]) ** 2
        if not share >= lowest:
            lowest, lowest_name = share, name
    lengths = (math.hypot(*each.norms.values()) for each in (fast, exact))
    return Agreement(total_dot / max(lengths) ** 2, lowest, lowest_name)
