"""Muon for the matrices inside the blocks, AdamW for everything else, as one optimizer."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import Parameter

# Jordan's momentum, and the scale at which an update is as long as one of AdamW's.
_MOMENTUM = 0.95
_ADJUST_LR_FN = "match_rms_adamw"


class MuonBesideAdamW(torch.optim.Optimizer):
    """torch's Muon and torch's AdamW behind the groups and the state of both.

    `matrices` are updated by Muon, which needs each of them whole: a shard of one (FSDP2) has
    other singular values. `adamw` brings the parameters of its own and their state. The groups
    are those of the two, so that a rate set in a group is the rate that is applied.

    Source: Jordan et al. 2024; Liu et al. 2025, section 2.2, for 0.2 sqrt(max(rows, columns)),
    with which Muon takes the learning rate and the weight decay of AdamW.
    """

    def __init__(
        self, matrices: list[Parameter], adamw: torch.optim.AdamW, *, weight_decay: float
    ) -> None:
        self.adamw = adamw
        self.muon = torch.optim.Muon(
            matrices,
            lr=0.0,
            weight_decay=weight_decay,
            momentum=_MOMENTUM,
            adjust_lr_fn=_ADJUST_LR_FN,
        )
        super().__init__([*self.muon.param_groups, *adamw.param_groups], {})
        self.muon.state = self.adamw.state = self.state

    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter once; `closure` is not for a step that is checked before."""
        assert closure is None, "the gradient is computed and checked before the update"
        self.muon.step()
        self.adamw.step()


def settings_of_muon(group: dict[str, Any]) -> dict[str, Any]:
    """What a group of Muon's decides beside its decay."""
    return {name: group[name] for name in ("momentum", "nesterov", "ns_steps", "adjust_lr_fn")}
