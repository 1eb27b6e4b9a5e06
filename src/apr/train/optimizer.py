"""The optimizer of a run with the groups a transformer wants, and its state as named tensors."""

from collections.abc import Iterator, Mapping, Set
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from apr.model.transformer import Transformer
from apr.train.hidden_matrices import is_hidden_matrix
from apr.train.muon import MuonBesideAdamW, settings_of_muon
from apr.train.parts import part_like

if TYPE_CHECKING:
    # A closed object at the edge of the process; here only its fields are read.
    from apr.train.config import TrainConfig

_MOMENTS_OF_ADAMW = ("exp_avg", "exp_avg_sq")
_MOMENTS_OF_MUON = ("momentum_buffer",)


def build_optimizer(model: Transformer, config: "TrainConfig") -> torch.optim.Optimizer:
    """AdamW, or Muon beside it, that decays matrices and leaves norms and biases alone.

    Muon updates the matrices inside the blocks, AdamW the embedding, the head, norms and biases.
    The rate starts at zero: each step sets it from the schedule before use.

    Source: Loshchilov and Hutter 2019; torch.optim.AdamW, fused. Muon: `train.muon`.
    """
    parameters = dict(model.named_parameters())
    of_muon = [
        parameter
        for name, parameter in parameters.items()
        if config.optimizer == "muon" and is_hidden_matrix(name, parameter.shape)
    ]
    chosen = {id(parameter) for parameter in of_muon}
    others = [parameter for parameter in parameters.values() if id(parameter) not in chosen]
    adamw = torch.optim.AdamW(
        [
            {
                "params": [parameter for parameter in others if parameter.ndim >= 2],
                "weight_decay": config.weight_decay,
            },
            {
                "params": [parameter for parameter in others if parameter.ndim < 2],
                "weight_decay": 0.0,
            },
        ],
        lr=0.0,
        betas=(config.adam_beta1, config.adam_beta2),
        fused=True,
    )
    if not of_muon:
        return adamw
    return MuonBesideAdamW(of_muon, adamw, weight_decay=config.weight_decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Apply one rate to every group."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def applied_learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """The rate as the optimizer holds it, read back; every group must agree."""
    rates = {float(group["lr"]) for group in optimizer.param_groups}
    assert len(rates) == 1, f"groups disagree on the learning rate: {sorted(rates)}"
    return rates.pop()


def applied_settings(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What the optimizer itself holds, read back: its kind, and every group's settings and size."""
    return {
        "kind": type(optimizer).__name__,
        "groups": [
            {
                "num_tensors": len(group["params"]),
                "num_parameters": sum(parameter.numel() for parameter in group["params"]),
                **_settings(group),
                "weight_decay": group["weight_decay"],
            }
            for group in optimizer.param_groups
        ],
    }


def moments(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What the optimizer remembers of past gradients; empty before the first update."""
    return [
        optimizer.state[parameter][part]
        for parameter, parts in _parts(optimizer)
        for part in parts
        if parameter in optimizer.state and part != "step"
    ]


def state_tensors(model: Transformer, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments of every parameter, and AdamW's count of steps, under the parameter's name."""
    parts = dict(_parts(optimizer))
    return {
        f"{name}/{part}": optimizer.state[parameter][part]
        for name, parameter in model.named_parameters()
        for part in parts[parameter]
        if parameter in optimizer.state
    }


def load_state_tensors(
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    *,
    beside: Set[str] = frozenset(),
) -> None:
    """Put back what `state_tensors` returned, whole; a rank takes the part that it holds.

    KeyError when a tensor is missing, or left over that is not known to lie `beside` them.
    """
    remaining, parts = set(tensors) - beside, dict(_parts(optimizer))
    for name, parameter in model.named_parameters():
        state: dict[str, Tensor] = {}
        for part in parts[parameter]:
            tensor = tensors[f"{name}/{part}"]
            if part == "step":
                state[part] = tensor.to(parameter.device)
            else:
                state[part] = part_like(parameter, tensor)
            remaining.remove(f"{name}/{part}")
        optimizer.state[parameter] = state
    if remaining:
        raise KeyError(min(remaining))


def _parts(optimizer: torch.optim.Optimizer) -> Iterator[tuple[Tensor, tuple[str, ...]]]:
    """Every parameter with the names of the tensors that the optimizer keeps of it."""
    for group in optimizer.param_groups:
        parts = (*_MOMENTS_OF_ADAMW, "step") if "betas" in group else _MOMENTS_OF_MUON
        yield from ((parameter, parts) for parameter in group["params"])


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    if "betas" in group:
        return {"betas": list(group["betas"]), "eps": group["eps"]}
    return settings_of_muon(group)
