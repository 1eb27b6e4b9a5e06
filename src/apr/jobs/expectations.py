"""What may be expected of a run, and what its token budget would need."""

from typing import Any

from apr.architecture import PRESET_NAMES, Architecture, preset
from apr.jobs.costs import Data
from apr.train.config import TrainConfig
from apr.train.scaling_law import (
    LAWS,
    VALIDITY,
    ScalingLaw,
    outside_of_the_fit,
    why_no_number,
)
from apr.train.token_budget import (
    TOKENS_PER_PARAMETER,
    effective_tokens,
    sufficient_tokens,
    tokens_worth,
)


def expected_losses(
    architecture: Architecture, worth: float, *, is_continued: bool
) -> list[dict[str, Any]]:
    """The final loss of a run whose tokens are worth so many new ones, by every published law."""
    if is_continued:
        reason = "the laws are of models trained from scratch; this one is continued"
        return [
            {"law": law.name, "source": law.source, "loss_nats": None, "loss_nats_reason": reason}
            for law in LAWS
        ]
    return [_expected_by(law, architecture, worth) for law in LAWS]


def _expected_by(law: ScalingLaw, architecture: Architecture, worth: float) -> dict[str, Any]:
    size = architecture.num_parameters
    reason = why_no_number(law, size, worth, vocab_size=architecture.vocab_size)
    number = {"loss_nats": law.loss_nats(size, worth)}
    return {
        "law": law.name,
        "source": law.source,
        **(number if reason is None else {"loss_nats": None, "loss_nats_reason": reason}),
        "for_tokens": worth,
        "outside_of_the_fit": outside_of_the_fit(size, worth),
        "validity": VALIDITY,
    }


def budget(
    config: TrainConfig, architecture: Architecture, data: Data | None, *, seen_tokens: int | None
) -> dict[str, Any]:
    """What would satisfy preflight.token-budget, after the tokens that a model has seen already.

    `seen_tokens` is 0 from scratch, and None for an initial model that does not say.
    """
    if seen_tokens is None:
        reason = "the initial model does not say how many tokens it has seen: apr stamp FILE "
        reason += "--pretraining-tokens N"
        names = ("is_met", "tokens_needed", "num_steps_needed", "largest_sufficient_preset")
        return {
            key: value
            for name in names
            for key, value in ((name, None), (f"{name}_reason", reason))
        }
    missing = max(0, sufficient_tokens(architecture.num_parameters) - seen_tokens)
    worth, tokens = float(config.planned_tokens), missing or None
    if data is not None:
        worth = effective_tokens(config.planned_tokens, data.unique_tokens)
        tokens = tokens_worth(missing, data.unique_tokens) if missing else None
    facts: dict[str, Any] = {
        "tokens_per_parameter_needed": TOKENS_PER_PARAMETER,
        "seen_tokens": seen_tokens,
        "is_met": worth >= missing,
        "tokens_needed": tokens,
        "num_steps_needed": None if tokens is None else -(-tokens // config.batch_tokens),
        "largest_sufficient_preset": _largest_preset(config, architecture, seen_tokens + worth),
    }
    if tokens is None:
        reason = (
            f"no number of epochs over this data is worth {missing} new tokens; add data"
            if missing
            else f"none: the {seen_tokens} tokens it has seen satisfy the budget"
        )
        facts |= {"tokens_needed_reason": reason, "num_steps_needed_reason": reason}
    if facts["largest_sufficient_preset"] is None:
        total = seen_tokens + worth
        facts["largest_sufficient_preset_reason"] = (
            f"{total:.0f} tokens suffice for {total / TOKENS_PER_PARAMETER:.0f} parameters"
        )
    return facts


def _largest_preset(config: TrainConfig, architecture: Architecture, worth: float) -> str | None:
    """The largest preset that these tokens suffice for, at this vocabulary where it has none."""
    shapes = {
        name: preset(
            name, tokenizer_vocab_size=architecture.vocab_size, vocab_size=config.vocab_size
        )
        for name in PRESET_NAMES
    }
    sizes = {name: shape.num_parameters for name, shape in shapes.items()}
    fitting = [name for name, size in sizes.items() if sufficient_tokens(size) <= worth]
    return max(fitting, key=lambda name: sizes[name], default=None)
