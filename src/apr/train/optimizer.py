"""AdamW with the groups a transformer wants, and its state as named tensors."""

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from apr.model.transformer import Transformer
from apr.train.parts import part_like

if TYPE_CHECKING:
    # A closed object at the edge of the process; here only its fields are read.
    from apr.train.config import TrainConfig


def build_optimizer(model: Transformer, config: "TrainConfig") -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves norms and biases alone.

    The rate starts at zero: each step sets it from the schedule before use.

    Source: Loshchilov and Hutter 2019; torch.optim.AdamW, fused.
    """
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=0.0,
        betas=(config.adam_beta1, config.adam_beta2),
        fused=True,
    )


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
                "betas": list(group["betas"]),
                "eps": group["eps"],
                "weight_decay": group["weight_decay"],
            }
            for group in optimizer.param_groups
        ],
    }


def state_tensors(model: Transformer, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Both moments and the step count of every parameter, under the parameter's name."""
    return {
        f"{name}/{part}": optimizer.state[parameter][part]
        for name, parameter in model.named_parameters()
        for part in ("exp_avg", "exp_avg_sq", "step")
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
    remaining = set(tensors) - beside
    for name, parameter in model.named_parameters():
        state: dict[str, Tensor] = {}
        for part in ("step", "exp_avg", "exp_avg_sq"):
            tensor = tensors[f"{name}/{part}"].to(parameter.device)
            state[part] = tensor if part == "step" else part_like(parameter, tensor)
            remaining.remove(f"{name}/{part}")
        optimizer.state[parameter] = state
    if remaining:
        raise KeyError(min(remaining))
