"""A model on several ranks: each computes its rows, and the gradients are added up.

`ddp` keeps the whole model on every rank. `fsdp` deals weights, gradients and moments out, and
gathers a unit's weights when it computes: a block, or the whole of a model that is small.

Source: torch.nn.parallel.DistributedDataParallel; torch.distributed.fsdp.fully_shard.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

from torch import Tensor, nn

from apr.model.transformer import Transformer
from apr.train.agreement import digest_of_tensors, require_agreement
from apr.train.prepare import PreparedRun
from apr.train.ranks import Ranks
from apr.train.step import GradientExchange, SummedLoss

# Below this a whole model is gathered at once: fewer messages, and one compiled function.
_ONE_UNIT_BYTES = 1 << 30


class _Loss(nn.Module):
    """A loss as a module, which is what the libraries wrap; its parameters are the model's."""

    def __init__(self, model: Transformer, summed_loss: SummedLoss) -> None:
        super().__init__()
        self.transformer = model
        self._summed_loss = summed_loss

    def forward(self, inputs: Tensor, targets: Tensor, documents: Tensor | None) -> Tensor:
        return self._summed_loss(self.transformer, inputs, targets, documents)


def spread(run: PreparedRun) -> PreparedRun:
    """Spread the model of a run over its ranks, which must all hold the same weights.

    Build the optimizer afterwards: under `fsdp` the parameters are other tensors.

    Refuses: ranks.differ. A broadcast would hide what is wrong.
    """
    if not run.ranks.are_many:
        return run
    weights = digest_of_tensors(run.model.parameters())
    require_agreement(run.ranks, 0, {"the weights to start from": weights})
    is_dealt_out = run.config.data_parallel == "fsdp"
    loss, exchange = share(run.model, run.summed_loss, run.ranks, is_dealt_out=is_dealt_out)
    # Nothing computes with parts of a model but what gathers them.
    validated = loss if is_dealt_out else run.summed_loss
    return replace(run, summed_loss=validated, shared_loss=loss, exchange=exchange)


def share(
    model: Transformer,
    summed_loss: SummedLoss,
    ranks: Ranks,
    *,
    is_dealt_out: bool,
    one_unit_bytes: int = _ONE_UNIT_BYTES,
) -> tuple[SummedLoss, GradientExchange]:
    """The loss whose backward pass averages the gradients over the ranks, and how it is used.

    A dealt out model larger than `one_unit_bytes` is gathered block by block.
    """
    module = _Loss(model, summed_loss)
    if not is_dealt_out:
        return _replicated(module, ranks)
    size_bytes = sum(each.numel() * each.element_size() for each in module.parameters())
    return _dealt_out(module, ranks, by_block=size_bytes > one_unit_bytes)


def _replicated(module: _Loss, ranks: Ranks) -> tuple[SummedLoss, GradientExchange]:
    shared = nn.parallel.DistributedDataParallel(
        module, init_sync=False, gradient_as_bucket_view=True
    )

    def loss(_: Transformer, *batch: Tensor | None) -> Tensor:
        return shared(*batch)

    return loss, GradientExchange(ranks, shared.no_sync)


def _dealt_out(
    module: _Loss, ranks: Ranks, *, by_block: bool
) -> tuple[SummedLoss, GradientExchange]:
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if by_block:
        for block in module.transformer.model.layers:
            fully_shard(block)
    shared = fully_shard(module)
    assert isinstance(shared, FSDPModule)

    @contextmanager
    def local() -> Generator[None]:
        shared.set_requires_gradient_sync(False)
        yield
        shared.set_requires_gradient_sync(True)

    def loss(_: Transformer, *batch: Tensor | None) -> Tensor:
        return module(*batch)

    return loss, GradientExchange(ranks, local, shared.reshard)
