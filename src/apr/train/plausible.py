"""Which losses a language model can have, on both sides.

A threshold with one side is met by whatever is broken enough: a loss of 0.0008 passes every test
for "low".
"""

import math

LOWEST_NATS = 0.01
"""A probability of 0.99 for every token: no text that was not seen is foreseen like this."""
MARGIN_NATS = 0.5
"""How far above a uniform guess a model that has learned may lie."""


def implausible(loss_nats: float, *, vocab_size: float | None = None) -> str | None:
    """What is wrong with a held-out loss, in words; None when it can be one.

    Without `vocab_size` the upper side is not judged.

    Units: nats per token.
    """
    if not math.isfinite(loss_nats):
        return f"a loss of {loss_nats} nats is no number"
    if loss_nats < LOWEST_NATS:
        return f"a loss of {loss_nats:.3g} nats is below {LOWEST_NATS:g}, which no text allows"
    if vocab_size is not None and vocab_size > 1:
        highest = math.log(vocab_size) + MARGIN_NATS
        if loss_nats > highest:
            return f"a loss of {loss_nats:.3g} nats is above {highest:.3g}, a uniform guess"
    return None
