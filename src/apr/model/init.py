"""Fresh weights: a pure function of the architecture and a seed.

Every parameter draws from a generator of its own, keyed by its name, so that the values do not
depend on the order of construction, and adding a parameter changes no other.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from apr.architecture import Architecture
from apr.model.transformer import Transformer

_STD = 0.02
# A chance of one in some 10^11 for a sound parameter: thousands of them are looked at.
_STANDARD_ERRORS = 7.0


def initialize(model: Transformer, *, seed: int) -> None:
    """Fill every parameter in place.

    Matrices are normal with standard deviation 0.02; the two that write into the residual
    stream are divided by the square root of twice the depth, so that the stream's variance does
    not grow with it. Norms are one, biases zero.

    Source: Radford et al. 2019, section 2.3.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_fresh(name, parameter.shape, model.architecture, seed))


def fresh_weights(architecture: Architecture, *, seed: int) -> Iterator[tuple[str, Tensor]]:
    """What `initialize` fills a model with, one parameter after the other, by name."""
    for name, shape in architecture.parameter_shapes().items():
        yield name, _fresh(name, shape, architecture, seed)


def undeclared_parameter(
    architecture: Architecture, weights: Iterable[tuple[str, Tensor]]
) -> str | None:
    """The first parameter that no fresh model has, and why, in words; None when there is none.

    Constants are compared exactly; of the others the mean and the standard deviation lie within
    what chance allows.
    """
    for name, parameter in weights:
        values, std = parameter.detach(), declared_std(name, architecture)
        if std is None:
            constant = 1.0 if name.endswith("norm.weight") else 0.0
            if not bool((values == constant).all()):
                return f"{name} is not {constant:g} throughout"
            continue
        margin = _STANDARD_ERRORS / math.sqrt(values.numel())
        mean, spread = float(values.mean()), float(values.std())
        if not (abs(mean) <= margin * std and abs(spread - std) <= margin * std):
            return f"{name} has mean {mean:.3g} and deviation {spread:.3g}, not 0 and {std:.3g}"
    return None


def declared_std(name: str, architecture: Architecture) -> float | None:
    """Standard deviation a fresh parameter must have; None for norms and biases (constants)."""
    if name.endswith(("norm.weight", ".bias")):
        return None
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        return _STD / math.sqrt(2 * architecture.num_hidden_layers)
    return _STD


def _fresh(name: str, shape: Sequence[int], architecture: Architecture, seed: int) -> Tensor:
    std = declared_std(name, architecture)
    if std is None:
        return torch.full(tuple(shape), 1.0 if name.endswith("norm.weight") else 0.0)
    generator = torch.Generator().manual_seed(_seed_of(name, seed))
    return torch.randn(tuple(shape), generator=generator).mul_(std)


def _seed_of(name: str, seed: int) -> int:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
