"""How many tokens a model needs, and what repeated ones are worth.

The one home of the token budget's arithmetic: the gate and the plan ask here.
"""

import math
from typing import Literal

TOKENS_PER_PARAMETER = 20.0
"""Where training compute is spent best from scratch. Source: Hoffmann et al. 2022, table 3."""
DEGENERATION_BELOW = 10.0
"""Tokens per parameter below which text of the model falls into loops (upstream's zone)."""
CHEAP_EPOCHS = 4.0
"""Epochs up to which repeated text is nearly as good as new. Source: Muennighoff et al. 2023."""
_REPETITION_HALF_LIFE = 15.39

Zone = Literal["degeneration", "plateau", "optimal"]


def effective_tokens(planned_tokens: int, unique_tokens: int) -> float:
    """What a number of planned tokens is worth when only so many of them are new.

    Equal to the plan as long as nothing is repeated, and never more than 16.39 times the data.
    Nothing is worth anything without data.

    Source: Muennighoff et al. 2023, equation 5: U + U R (1 - exp(-(epochs - 1) / R)), R = 15.39.
    """
    if unique_tokens <= 0:
        return 0.0
    repetitions = planned_tokens / unique_tokens - 1
    if repetitions <= 0:
        return float(planned_tokens)
    worth = _REPETITION_HALF_LIFE * -math.expm1(-repetitions / _REPETITION_HALF_LIFE)
    return unique_tokens * (1 + worth)


def zone(tokens_per_parameter: float) -> Zone:
    """The name of a ratio's zone; the lower border belongs to it: exactly 20 is optimal."""
    if tokens_per_parameter < DEGENERATION_BELOW:
        return "degeneration"
    return "plateau" if tokens_per_parameter < TOKENS_PER_PARAMETER else "optimal"


def sufficient_tokens(num_parameters: int) -> int:
    """The fewest tokens that satisfy the budget."""
    return math.ceil(TOKENS_PER_PARAMETER * num_parameters)


def sufficient_steps(num_parameters: int, *, batch_tokens: int) -> int:
    """The fewest optimizer updates that satisfy the budget, when no token is repeated."""
    return -(-sufficient_tokens(num_parameters) // batch_tokens)


def tokens_worth(effective: float, unique_tokens: int) -> int | None:
    """How many tokens to plan so that they are worth `effective`; None when no number of them is.

    The inverse of `effective_tokens`.
    """
    if effective <= unique_tokens:
        return math.ceil(effective)
    # What repetition must add, as a share of the most it can ever add.
    share = (effective / unique_tokens - 1) / _REPETITION_HALF_LIFE if unique_tokens else 1.0
    if share >= 1:
        return None
    repetitions = -_REPETITION_HALF_LIFE * math.log1p(-share)
    return math.ceil(unique_tokens * (1 + repetitions))
