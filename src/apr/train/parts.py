"""Tensors of which each rank may hold a part: put together, and taken apart.

A run that deals nothing out has ordinary tensors, and each function here returns what it was given.
"""

from collections.abc import Iterable, Mapping

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
