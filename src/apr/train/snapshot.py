"""A run at one moment, copied into memory of its own, so that training may go on meanwhile."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from apr.architecture import Architecture
from apr.model.transformer import Transformer
from apr.train.host_copies import HostCopies
from apr.train.optimizer import state_tensors
from apr.train.optimizer_state import Share
from apr.train.parts import are_dealt_out, own_part
from apr.train.ranks import ALONE, Ranks
from apr.train.train_state import TrainState

RNG = "rng/torch"
"""The name of the random state among the optimizer's tensors."""


@dataclass(frozen=True)
class Snapshot:
    """Everything a checkpoint holds, as it was at one moment, in memory of its own on the CPU."""

    architecture: Architecture
    weights: dict[str, Tensor]
    """Whole, and with the first rank alone."""
    share: Share
    """This rank's part of the optimizer's state, or all of it; the RNG is with the first."""
    state: TrainState
    settle: Callable[[], None] = lambda: None
    """Returns once the tensors are there, and refuses those that are not what they should be."""


class SnapshotMemory:
    """Where the snapshots of one run are taken, one after the other."""

    def __init__(self) -> None:
        self.weights, self.moments = HostCopies(), HostCopies()

    def hold(self) -> None:
        """Have the device take the snapshot before anything that it is asked for from now on."""
        self.weights.hold()
        self.moments.hold()

    def settle(self) -> None:
        """Return once the snapshot is there.

        Refuses: checkpoint.read-back.
        """
        self.weights.wait()
        self.moments.wait()

    def release(self) -> None:
        """Give the memory back; the last snapshot is gone with it."""
        self.weights.release()
        self.moments.release()


def take_snapshot(
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    state: TrainState,
    *,
    ranks: Ranks = ALONE,
    memory: SnapshotMemory | None = None,
) -> Snapshot:
    """Copy weights, moments, RNG and state; whoever goes on training changes none of the copies.

    With a `memory` the device may still be copying: whoever reads settles first, and whoever
    changes a weight or a moment holds before. What was taken into it before is gone. Weights that
    are dealt out over ranks are put together for the first, one tensor after the other, for which
    all ranks must ask at once.
    """
    weights = dict(model.named_parameters())
    num_ranks = ranks.world_size if are_dealt_out(weights.values()) else 1
    own = {name: own_part(tensor) for name, tensor in state_tensors(model, optimizer).items()}
    assert not state.tokens_seen or len(own) >= len(weights), "an optimizer without its moments"
    into = memory or SnapshotMemory()
    parts = into.moments.take({name: part for name, (part, _) in own.items()})
    if ranks.is_first:
        parts[RNG] = torch.get_rng_state()
    snapshot = Snapshot(
        architecture=model.architecture,
        weights=into.weights.take(weights, keep=ranks.is_first),
        share=Share(
            parts,
            {name: extent for name, (_, extent) in own.items() if extent is not None},
            ranks.rank if num_ranks > 1 else 0,
            num_ranks,
        ),
        state=copy.deepcopy(state),
        settle=into.settle,
    )
    if memory is None:
        into.settle()
        into.release()
    return snapshot
