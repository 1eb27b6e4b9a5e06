"""The final loss that published scaling laws expect, and where they may be asked at all.

Each law was fitted to runs of one kind. A number for other amounts of tokens is marked as such: the
curve goes on, the evidence does not. For a model of another size, or where the curve lies above a
uniform guess, there is no number at all.
"""

import math
from dataclasses import dataclass

_FITTED_PARAMETERS = (70e6, 16e9)
_FITTED_TOKENS = (5e9, 500e9)


@dataclass(frozen=True)
class ScalingLaw:
    """loss_nats = floor + parameters_scale / N^parameters_power + tokens_scale / D^tokens_power."""

    name: str
    source: str
    floor: float
    parameters_scale: float
    parameters_power: float
    tokens_scale: float
    tokens_power: float

    def loss_nats(self, num_parameters: int, num_tokens: float) -> float:
        """Expected loss of a model of N parameters after D tokens, in nats per token."""
        return (
            self.floor
            + self.parameters_scale / num_parameters**self.parameters_power
            + self.tokens_scale / num_tokens**self.tokens_power
        )


LAWS = (
    ScalingLaw(
        "hoffmann-2022",
        "Hoffmann et al. 2022, approach 3, equation 10",
        floor=1.69,
        parameters_scale=406.4,
        parameters_power=0.34,
        tokens_scale=410.7,
        tokens_power=0.28,
    ),
    ScalingLaw(
        "besiroglu-2024",
        "Besiroglu et al. 2024, the same runs fitted again",
        floor=1.8172,
        parameters_scale=482.01,
        parameters_power=0.3478,
        tokens_scale=2085.43,
        tokens_power=0.3658,
    ),
)
VALIDITY = (
    "fitted to models of 70M to 16B parameters on 5B to 500B tokens of MassiveText, mostly English "
    "web pages and books, each token seen at most once, with a SentencePiece vocabulary of 32,000; "
    "nats per token of another tokenizer or of code are other numbers"
)


_OTHER_SIZE = "parameters outside of 70M to 16B"


def outside_of_the_fit(num_parameters: int, num_tokens: float) -> list[str]:
    """Why a law's number for this run is an extrapolation; empty when size and tokens are not."""
    reasons: list[str] = []
    if not _FITTED_PARAMETERS[0] <= num_parameters <= _FITTED_PARAMETERS[1]:
        reasons.append(_OTHER_SIZE)
    if not _FITTED_TOKENS[0] <= num_tokens <= _FITTED_TOKENS[1]:
        reasons.append("tokens outside of 5B to 500B")
    return reasons


def why_no_number(
    law: ScalingLaw, num_parameters: int, num_tokens: float, *, vocab_size: int
) -> str | None:
    """Why a law says nothing of this run; None where its number may be shown."""
    if _OTHER_SIZE in outside_of_the_fit(num_parameters, num_tokens):
        return f"the law was fitted to models of 70M to 16B parameters, not of {num_parameters:,}"
    loss_nats, guessing_nats = law.loss_nats(num_parameters, num_tokens), math.log(vocab_size)
    if loss_nats > guessing_nats:
        return (
            f"the curve is at {loss_nats:.1f} here, above the {guessing_nats:.2f} nats of guessing "
            f"among {vocab_size:,} entries"
        )
    return None
