"""What may be expected of a run, and what its token budget would need."""

from typing import Any

from apr.architecture import PRESET_NAMES, Architecture, preset
from apr.jobs.costs import Data
from apr.train.config import TrainConfig
from apr.train.scaling_law import LAWS, VALIDITY, outside_of_the_fit
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
    return [
        {
            "law": law.name,
            "source": law.source,
            "loss_nats": law.loss_nats(architecture.num_parameters, worth),
            "for_tokens": worth,
            "outside_of_the_fit": outside_of_the_fit(architecture.num_parameters, worth),
            "validity": VALIDITY,
        }
        for law in LAWS
    ]


def budget(
    config: TrainConfig, architecture: Architecture, data: Data | None, *, is_continued: bool
) -> dict[str, Any]:
    """What would satisfy the gate, for a model from scratch."""
    if is_continued:
        reason = "a continued model has seen tokens before; the ratio is asked from scratch only"
        return {
            "tokens_needed": None,
            "tokens_needed_reason": reason,
            "num_steps_needed": None,
            "num_steps_needed_reason": reason,
            "largest_sufficient_preset": None,
            "largest_sufficient_preset_reason": reason,
        }
    needed = sufficient_tokens(architecture.num_parameters)
    planned, worth = config.planned_tokens, float(config.planned_tokens)
    tokens: int | None = needed
    if data is not None:
        worth = effective_tokens(planned, data.unique_tokens)
        tokens = tokens_worth(needed, data.unique_tokens)
    facts: dict[str, Any] = {
        "tokens_per_parameter_needed": TOKENS_PER_PARAMETER,
        "is_met": worth >= needed,
        "tokens_needed": tokens,
        "num_steps_needed": None if tokens is None else -(-tokens // config.batch_tokens),
        "largest_sufficient_preset": _largest_preset(config, architecture, worth),
    }
    if tokens is None:
        reason = f"no number of epochs over this data is worth {needed} new tokens; add data"
        facts |= {"tokens_needed_reason": reason, "num_steps_needed_reason": reason}
    if facts["largest_sufficient_preset"] is None:
        facts["largest_sufficient_preset_reason"] = (
            f"{worth:.0f} tokens suffice for {worth / TOKENS_PER_PARAMETER:.0f} parameters"
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
