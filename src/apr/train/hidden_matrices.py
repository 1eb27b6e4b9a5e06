"""Which parameters Muon updates, and how much an optimizer remembers of a model."""

from collections.abc import Sequence
from math import prod
from typing import Literal

from apr.architecture import Architecture

OptimizerName = Literal["adamw", "muon"]


def is_hidden_matrix(name: str, shape: Sequence[int]) -> bool:
    """Whether a parameter maps activations to activations inside a block.

    Not the embedding and not the head: a row of either belongs to one token, and most rows have
    no gradient in a batch, so that equalling out the singular values of all of them says nothing.

    Source: Jordan et al. 2024, on which parameters Muon is for.
    """
    return name.startswith("model.layers.") and len(shape) == 2


def num_moments(architecture: Architecture, optimizer: OptimizerName) -> int:
    """Numbers that the optimizer keeps: two of each parameter, one of each that Muon updates."""
    of_muon = 0
    if optimizer == "muon":
        of_muon = sum(
            prod(shape)
            for name, shape in architecture.parameter_shapes().items()
            if is_hidden_matrix(name, shape)
        )
    return 2 * architecture.num_parameters - of_muon
