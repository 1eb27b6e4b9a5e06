"""Tensors of which each rank may hold a part: put together, and taken apart.

A run that deals nothing out has ordinary tensors, and each function here returns what it was given.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from apr.model.transformer import Transformer


def are_dealt_out(tensors: Iterable[Tensor]) -> bool:
    """Whether no rank holds the whole of these."""
    # By what it can do: loading torch.distributed.tensor takes as long as all else of a start.
    return any(hasattr(tensor, "full_tensor") for tensor in tensors)


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all of its parts, wherever they are; every rank must ask at the same time."""
    return tensor.full_tensor() if are_dealt_out([tensor]) else tensor  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]


class Extent(NamedTuple):
    """Which rows of a whole tensor a part holds."""

    first_row: int
    whole_rows: int


def own_part(tensor: Tensor) -> tuple[Tensor, Extent | None]:
    """What this rank holds of a tensor, and which rows those are; None where it holds all."""
    if not are_dealt_out([tensor]):
        return tensor, None
    from torch.distributed.tensor import DTensor

    assert isinstance(tensor, DTensor)
    part, rank = tensor.to_local(), tensor.device_mesh.get_local_rank()
    # As torch.chunk deals rows out: parts of equal size, and the last ones short or empty.
    size = -(-tensor.shape[0] // tensor.device_mesh.size())
    first_row = min(rank * size, tensor.shape[0])
    assert len(part) == min(size, tensor.shape[0] - first_row)
    return part, Extent(first_row, tensor.shape[0])


def part_like(example: Tensor, tensor: Tensor) -> Tensor:
    """This rank's part of a whole tensor, dealt out as another one is; nobody is asked."""
    if not are_dealt_out([example]):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(example, DTensor)
    local = tensor.to(example.to_local().device)
    return distribute_tensor(local, example.device_mesh, example.placements, src_data_rank=None)


def put_weights(model: Transformer, weights: Mapping[str, Tensor]) -> None:
    """Load whole weights into a model, strictly, of which each rank may hold a part.

    KeyError when a tensor is missing or left over.
    """
    remaining = dict(weights)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(part_like(parameter, remaining.pop(name)))
    if remaining:
        raise KeyError(min(remaining))
