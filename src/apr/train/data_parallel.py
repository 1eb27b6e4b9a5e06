"""A model on several ranks: each computes its rows, and the gradients are averaged.

`ddp` keeps the whole model on every rank. `fsdp` deals weights, gradients and moments out, and
gathers a unit's weights when it computes: a block, or the whole of a model that is small.

Source: torch.nn.parallel.DistributedDataParallel; torch.distributed.fsdp.fully_shard.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from apr.model.transformer import Transformer
from apr.train.parts import are_dealt_out, own_part
from apr.train.ranks import Ranks
from apr.train.step import GradientExchange, SummedLoss

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

SeeGradient = Callable[[str, Tensor], None]
"""Called with the name of a parameter and a gradient of all of it, from this rank's rows alone."""


class _Loss(nn.Module):
    """A loss as a module, which is what the libraries wrap; its parameters are the model's."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.transformer = model

    def forward(
        self, loss: SummedLoss, inputs: Tensor, targets: Tensor, documents: Tensor | None
    ) -> Tensor:
        return loss(self.transformer, inputs, targets, documents)


def replicate(
    model: Transformer, summed_loss: SummedLoss, ranks: Ranks
) -> tuple[SummedLoss, GradientExchange]:
    """The loss whose backward pass averages the gradients of whole models over their ranks.

    Also how gradients are kept from being exchanged before the last micro-batch of a step.
    """
    shared = nn.parallel.DistributedDataParallel(
        _Loss(model), init_sync=False, gradient_as_bucket_view=True
    )

    def loss(_: Transformer, *batch: Tensor | None) -> Tensor:
        return shared(summed_loss, *batch)

    # Let go of, they would be added up beside the buckets until the last micro-batch: all twice.
    return loss, GradientExchange(ranks, shared.no_sync, keeps_gradients=True)


@dataclass(frozen=True)
class DealtOut:
    """A model of which each rank holds a part, gathered where a loss computes with it.

    Nothing else may: outside a loss its parameters are parts.
    """

    own_loss: SummedLoss
    """The loss of a run, of gathered weights."""
    exchange: GradientExchange
    _module: _Loss
    as_read: Mapping[str, int] = field(default_factory=dict[str, int])
    """64 bits of each whole tensor, as this rank has read it."""

    def through(self, loss: SummedLoss) -> SummedLoss:
        """A loss with the weights gathered for it; its backward pass exchanges the gradients."""

        def gathered(_: Transformer, *batch: Tensor | None) -> Tensor:
            return self._module(loss, *batch)

        return gathered

    @contextmanager
    def gradients_seen(self, see: SeeGradient) -> Generator[None]:
        """Show this rank's own gradient of every parameter, before it is averaged and dealt out.

        Once in each backward pass.
        """
        seen: dict[int, RemovableHandle] = {}

        def watch(prefix: str, module: nn.Module, _: Any) -> None:
            # Called with the weights of a unit gathered; again where a block is computed again.
            for name, parameter in module.named_parameters(prefix):
                if not are_dealt_out([parameter]) and id(parameter) not in seen:
                    seen[id(parameter)] = parameter.register_hook(partial(see, name))

        names = {block: f"model.layers.{n}" for n, block in enumerate(self._blocks())}
        watched = [
            block.register_forward_pre_hook(partial(watch, name)) for block, name in names.items()
        ]
        model = self._module.transformer
        watched.append(
            self._module.register_forward_pre_hook(lambda _, given: watch("", model, given))
        )
        try:
            yield
        finally:
            for handle in (*watched, *seen.values()):
                handle.remove()

    def _blocks(self) -> nn.ModuleList:
        return self._module.transformer.model.layers


def deal_out(
    model: Transformer,
    summed_loss: SummedLoss,
    ranks: Ranks,
    *,
    device: torch.device,
    by_block: bool,
) -> DealtOut:
    """Deal a model of the meta device out over the ranks; each holds rows of every parameter.

    What it holds is NaN, until `train.parts.put_weights` fills it. `by_block` gathers each block
    on its own, and keeps no gradient whole for longer than a block.
    """
    # A tenth of a second, and a run of one process needs none of it.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    assert all(parameter.is_meta for parameter in model.parameters())
    mesh = init_device_mesh(device.type, (ranks.world_size,))
    if by_block:
        for block in model.model.layers:
            fully_shard(block, mesh=mesh)
    module = _Loss(model)
    shared = fully_shard(module, mesh=mesh)
    assert isinstance(shared, FSDPModule)
    module.to_empty(device=device)
    with torch.no_grad():
        for parameter in model.parameters():
            own_part(parameter)[0].fill_(float("nan"))

    @contextmanager
    def local() -> Generator[None]:
        shared.set_requires_gradient_sync(False)
        yield
        shared.set_requires_gradient_sync(True)

    # A gradient that waits for the last micro-batch waits whole.
    exchange = GradientExchange(ranks, nullcontext if by_block else local, shared.reshard)
    return DealtOut(summed_loss, exchange, module)
