"""Fresh weights: a pure function of the architecture and a seed.

Every parameter draws from a generator of its own, keyed by its name, so that the values do not
depend on the order of construction, and adding a parameter changes no other.
"""

import hashlib
import math

import torch

from apr.architecture import Architecture
from apr.model.transformer import Transformer

_STD = 0.02


def initialize(model: Transformer, *, seed: int) -> None:
    """Fill every parameter in place.

    Matrices are normal with standard deviation 0.02; the two that write into the residual
    stream are divided by the square root of twice the depth, so that the stream's variance does
    not grow with it. Norms are one, biases zero.

    Source: Radford et al. 2019, section 2.3.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            std = declared_std(name, model.architecture)
            if std is None:
                parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)
            else:
                generator = torch.Generator().manual_seed(_seed_of(name, seed))
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


def declared_std(name: str, architecture: Architecture) -> float | None:
    """Standard deviation a fresh parameter must have; None for norms and biases (constants)."""
    if name.endswith(("norm.weight", ".bias")):
        return None
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        return _STD / math.sqrt(2 * architecture.num_hidden_layers)
    return _STD


def _seed_of(name: str, seed: int) -> int:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
