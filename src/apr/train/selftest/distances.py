"""How far two sets of tensors are apart, tensor by tensor, and which is the worst."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

# What is this much shorter than the longest is rounding noise, and is measured against that.
_NEGLIGIBLE = 1e-5
LARGEST_GPU_DISTANCE = 1e-3
"""On a GPU a sum may come out in another order each time; on a CPU nothing may differ."""


@dataclass(frozen=True)
class Distance:
    """The largest relative distance over all tensors, and where; NaN is larger than any."""

    value: float
    name: str
    num_compared: int

    def __str__(self) -> str:
        return f"{self.value:.1e} ({self.name})"


@dataclass(frozen=True)
class Bounds:
    """How far apart, relative: a loss, a gradient, and the length of gradients."""

    loss: float
    distance: float
    scale: float

    def within(self, most: "Bounds") -> bool:
        """Whether nothing is farther apart than that; NaN is."""
        return (
            self.loss <= most.loss and self.distance <= most.distance and self.scale <= most.scale
        )

    def __str__(self) -> str:
        return (
            f"losses within {self.loss:g}, every gradient within {self.distance:g}, their length "
            f"within {self.scale:g}, relative"
        )


def farthest(tensors: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> Distance:
    """The largest ||a - b|| / ||b|| over all names, which must be the same on both sides."""
    assert tensors.keys() == reference.keys(), "two different sets of parameters"
    lengths = {name: float(tensor.detach().double().norm()) for name, tensor in reference.items()}
    floor = _NEGLIGIBLE * max(lengths.values(), default=0.0)
    worst, worst_name = -1.0, "none"
    for name, expected in reference.items():
        apart = float((tensors[name].detach().double() - expected.detach().double()).norm())
        # Nothing against nothing is no distance.
        distance = apart / max(lengths[name], floor) if apart else 0.0
        if not distance <= worst:
            worst, worst_name = distance, name
    return Distance(worst, worst_name, len(lengths))


def differing(tensors: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> list[str]:
    """The names whose tensors are not the same bits, those on one side only included."""
    names = sorted(tensors.keys() | reference.keys())
    return [
        name
        for name in names
        if name not in tensors or name not in reference or not tensors[name].equal(reference[name])
    ]


def scale_difference(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """By how much tensors are longer in the direction of exact ones: noise averages out."""
    dots = [
        (float((found.double() * exact.double()).sum()), float(exact.double().square().sum()))
        for found, exact in pairs
    ]
    return abs(sum(dot for dot, _ in dots) / sum(square for _, square in dots) - 1.0)
