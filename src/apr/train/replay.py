"""A skipped step computed again: is it still what it was, and where does it stop being finite."""

import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from apr.model.transformer import Transformer
from apr.progress import Progress, Report, silent
from apr.train.loss import summed_loss
from apr.train.skipped_step import SkippedFacts, SkippedStep, json_number
from apr.train.step import accumulate_batch

# Kernels, threads and devices add up in another order than the run did; a finding is larger.
_LOSS_TOLERANCE, _NORM_TOLERANCE = 0.01, 0.05
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Computed:
    """A step's loss and gradient in one precision, and what of it is not finite.

    `first_not_finite` is the first module in forward order whose output is not, by its name;
    `loss` where all hidden states are finite and the loss, behind the head, is not.
    """

    precision: str
    loss_nats: float
    grad_norm: float
    first_not_finite: str | None
    parameters_not_finite: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has no word for NaN."""
        return {
            "precision": self.precision,
            "loss_nats": json_number(self.loss_nats),
            "grad_norm": json_number(self.grad_norm),
            "first_not_finite": self.first_not_finite,
            "parameters_not_finite": self.parameters_not_finite,
        }


@dataclass(frozen=True)
class Replay:
    """What was recorded and what was found now, in the run's precision first, then in fp32."""

    facts: SkippedFacts
    computed: list[Computed]

    @property
    def reproduced(self) -> bool:
        """Whether loss and gradient norm in the run's precision are again what was recorded."""
        again = self.computed[0]
        return _agrees(self.facts.loss_nats, again.loss_nats, _LOSS_TOLERANCE) and _agrees(
            self.facts.grad_norm, again.grad_norm, _NORM_TOLERANCE
        )


def replay_skipped(skipped: SkippedStep, *, progress: Report = silent) -> Replay:
    """Compute a skipped step again, eagerly, in the run's precision and in fp32; apply nothing."""
    precisions = list(dict.fromkeys([skipped.facts.precision, "fp32"]))
    computed: list[Computed] = []
    for precision in precisions:
        progress(
            Progress("computing the step", len(computed), len(precisions), "precisions", precision)
        )
        computed.append(_compute(skipped, precision))
    return Replay(skipped.facts, computed)


def _compute(skipped: SkippedStep, precision: str) -> Computed:
    model, batch = skipped.model, skipped.batch
    model.compute_dtype = _DTYPES[precision]
    with _watching(model) as seen:
        loss_nats = accumulate_batch(
            model,
            batch,
            summed_loss,
            document_mask=skipped.facts.document_mask,
            num_parts=skipped.facts.grad_accum,
        )
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    bad = [name for name, g in gradients.items() if not bool(torch.isfinite(g).all())]
    grad_norm = float(torch.nn.utils.get_total_norm(gradients.values()))
    model.zero_grad(set_to_none=True)
    first = seen[0] if seen else None if math.isfinite(loss_nats) else "loss"
    return Computed(precision, loss_nats, grad_norm, first, bad)


@contextmanager
def _watching(model: Transformer) -> Generator[list[str]]:
    """The names of modules whose output is not finite, in the order in which they computed."""
    seen: list[str] = []

    def watch(name: str, module: nn.Module) -> Any:
        def look(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            if not bool(torch.isfinite(output).all()):
                seen.append(name)

        return module.register_forward_hook(look)

    hooks = [watch(name, module) for name, module in model.named_modules() if name]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _agrees(recorded: float, found: float, tolerance: float) -> bool:
    if not math.isfinite(recorded):
        return not math.isfinite(found)
    return abs(found - recorded) <= tolerance * abs(recorded)
