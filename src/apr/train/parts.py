"""Tensors of which each rank may hold a part: put together, and taken apart.

A run that deals nothing out has ordinary tensors, and each function here returns what it was given.
"""

from collections.abc import Iterable
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


def rows_like(example: Tensor, tensor: Tensor) -> Tensor:
    """Of a whole tensor the rows that this rank holds of another one; on the same device."""
    part, extent = own_part(example)
    assert tensor.shape == example.shape, f"{tuple(tensor.shape)} for {tuple(example.shape)}"
    if extent is not None:
        tensor = tensor[extent.first_row : extent.first_row + len(part)]
    return tensor.to(part.device)


def part_like(example: Tensor, tensor: Tensor) -> Tensor:
    """This rank's part of a whole tensor, dealt out as another one is; nobody is asked."""
    rows = rows_like(example, tensor)
    if not are_dealt_out([example]):
        return rows
    from torch.distributed.tensor import DTensor

    assert isinstance(example, DTensor)
    return DTensor.from_local(
        # Of its own: a slice would keep the whole alive.
        rows.clone(),
        example.device_mesh,
        example.placements,
        run_check=False,
        shape=example.shape,
        stride=example.stride(),
    )


def put_weights(model: Transformer, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Put whole weights into a model, one after the other; a rank keeps the part that it holds.

    KeyError when a tensor is missing or left over.
    """
    remaining = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in weights:
            parameter = remaining.pop(name)
            own_part(parameter)[0].copy_(rows_like(parameter, tensor))
    if remaining:
        raise KeyError(min(remaining))


def whole_weights(model: Transformer, *, keep: bool) -> dict[str, Tensor]:
    """The weights of a model by name, whole; where they are dealt out, in the host's memory.

    Every rank must ask at the same time. They are put together one after the other, and those
    that do not `keep` them get none.
    """
    weights: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        is_part = are_dealt_out([parameter])
        together = whole(parameter)
        if keep:
            weights[name] = together.detach().cpu() if is_part else together
    return weights
