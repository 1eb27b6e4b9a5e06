"""What stops a step or a run: values that are not finite, spikes, and a loss that runs away.

Statistics are taken over applied steps alone, so that one bad value cannot poison what the next
is measured against; they are part of the run's state and survive a resume.
"""

import math
from dataclasses import dataclass, field
from statistics import median

from apr.errors import Refusal
from apr.model.transformer import Transformer
from apr.train.parts import are_dealt_out, own_part
from apr.train.ranks import ALONE, Ranks
from apr.train.validation import ValidationResult

_WINDOW_STEPS = 128
_ENOUGH_NORMS = 32
_SKIPS_PER_STEPS = 100


@dataclass
class GuardState:
    """The gradient norms of the last applied steps, and the steps that were skipped."""

    grad_norms: list[float] = field(default_factory=list)
    skipped_steps: list[int] = field(default_factory=list)

    def applied(self, grad_norm: float) -> None:
        """Remember a step that was applied."""
        self.grad_norms = [*self.grad_norms[1 - _WINDOW_STEPS :], grad_norm]

    def skipped(self, step: int) -> None:
        """Remember a step that was not."""
        self.skipped_steps.append(step)

    def num_skipped_lately(self, step: int) -> int:
        """Steps skipped among the last hundred, `step` included."""
        return sum(step - _SKIPS_PER_STEPS < each <= step for each in self.skipped_steps)

    def largest_grad_norm(self, *, spike_factor: float, max_grad_norm: float) -> float:
        """The norm above which a step is a spike: a multiple of the median of applied steps.

        Infinite until enough is known, and never below what is clipped anyway.
        """
        if len(self.grad_norms) < _ENOUGH_NORMS:
            return math.inf
        return max(max_grad_norm, spike_factor * median(self.grad_norms))


def require_converging(
    result: ValidationResult, *, best_loss_nats: float | None, factor: float, vocab_size: int
) -> None:
    """Refuse a held-out loss that no longer comes from learning.

    It has run away when it is a multiple of the best one so far, or twice that of a model that
    knows nothing.

    Refuses: train.diverged (GATE-TRAIN-005).
    """
    limits = {"2 ln V": 2.0 * math.log(vocab_size)}
    if best_loss_nats is not None:
        limits[f"{factor:g} times the best, {best_loss_nats:.4f}"] = factor * best_loss_nats
    for name, limit in limits.items():
        if result.loss_nats > limit:
            raise Refusal(
                "train.diverged",
                f"held-out set {result.set_sha256[:12]}",
                found=f"a held-out loss of {result.loss_nats:.4f} nats",
                expected=f"at most {limit:.4f}, which is {name}",
                fix="start a new run with a lower --lr, or from the last good checkpoint with "
                "--init; steps.jsonl shows where it left",
                upstream_id="GATE-TRAIN-005",
            )


def require_finite_weights(model: Transformer, *, step: int, ranks: Ranks = ALONE) -> None:
    """Refuse weights that no further step can mend, whichever rank holds them.

    Refuses: train.non-finite-weights (INV-TRAIN-007).
    """
    parameters = dict(model.named_parameters())
    if not are_dealt_out(parameters.values()):
        ranks = ALONE
    spoilt = (not bool(own_part(each)[0].isfinite().all()) for each in parameters.values())
    for name, is_spoilt in zip(parameters, ranks.any(*spoilt), strict=True):
        if is_spoilt:
            raise Refusal(
                "train.non-finite-weights",
                f"step {step}, {name}",
                found="a weight that is not finite",
                expected="finite weights",
                fix="resume from the last checkpoint, which was verified: the weights in memory "
                "were damaged after it",
                upstream_id="INV-TRAIN-007",
            )
