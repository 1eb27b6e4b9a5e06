"""The final loss that published scaling laws expect, and where they may be asked at all.

Each law was fitted to runs of one kind. A number from outside of these is marked as such: the
curve goes on, the evidence does not.
"""

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


def outside_of_the_fit(num_parameters: int, num_tokens: float) -> list[str]:
    """Why a law's number for this run is an extrapolation; empty when size and tokens are not."""
    reasons: list[str] = []
    if not _FITTED_PARAMETERS[0] <= num_parameters <= _FITTED_PARAMETERS[1]:
        reasons.append("parameters outside of 70M to 16B")
    if not _FITTED_TOKENS[0] <= num_tokens <= _FITTED_TOKENS[1]:
        reasons.append("tokens outside of 5B to 500B")
    return reasons
