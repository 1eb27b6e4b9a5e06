"""The model of a run with the weights it starts from: whole, or dealt out before one is read.

Weights come one tensor after the other, from the initial file, a checkpoint or a generator, so
that a rank that keeps a part never holds more than that and one tensor.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from apr.architecture import Architecture
from apr.errors import Refusal
from apr.model.init import fresh_weights
from apr.model.switches import join_again
from apr.model.transformer import Transformer
from apr.model.weights import opened_weights
from apr.progress import Report, silent
from apr.train.agreement import digest_of_tensors, digest_of_text, require_agreement
from apr.train.data_parallel import DealtOut, deal_out
from apr.train.inputs import Inputs
from apr.train.parts import put_weights, whole
from apr.train.ranks import Ranks
from apr.train.units_gathered import ONE_UNIT_BYTES, units_of

if TYPE_CHECKING:
    from apr.train.acceleration import Acceleration

Weights = Iterable[tuple[str, Tensor]]
"""Every parameter of a model by name, whole, one after the other."""
_WHAT = "the weights to start from"


def start_weights(inputs: Inputs, *, seed: int, progress: Report = silent) -> Weights:
    """Those of the initial file, else fresh ones.

    Refuses: as `load_model`.
    """
    if inputs.init is None:
        yield from fresh_weights(inputs.architecture, seed=seed)
        return
    with opened_weights(inputs.init.path, progress=progress) as stored:
        yield from stored.tensors()


def whole_model(
    architecture: Architecture,
    acceleration: "Acceleration",
    weights: Weights,
    *,
    recomputes_blocks: bool = False,
) -> Transformer:
    """A model with these weights on the device of a run, ready to compute as it does.

    KeyError when a tensor is missing or left over.
    """
    # On the device from the start: several ranks of one machine would fill the host's memory.
    with acceleration.device:
        model = Transformer(architecture)
    put_weights(model, weights)
    acceleration.apply_to(model)
    model.model.recomputes_blocks = recomputes_blocks
    return model


def dealt_out_model(
    architecture: Architecture,
    acceleration: "Acceleration",
    weights: Weights,
    ranks: Ranks,
    *,
    recomputes_blocks: bool = False,
    one_unit_bytes: int = ONE_UNIT_BYTES,
) -> tuple[Transformer, DealtOut]:
    """The same, of which each rank holds a part from the start.

    Larger than `one_unit_bytes` it is gathered block by block. KeyError when a tensor is missing
    or left over.
    """
    with torch.device("meta"):
        model = Transformer(architecture)
    acceleration.apply_to(model)
    model.model.recomputes_blocks = recomputes_blocks
    by_block = units_of(architecture, one_unit_bytes=one_unit_bytes).block_bytes > 0
    if by_block:
        join_again(model)
    dealt = deal_out(
        model,
        acceleration.loss_function(),
        ranks,
        device=acceleration.device,
        by_block=by_block,
    )
    as_read: dict[str, int] = {}
    put_weights(model, _noted(weights, acceleration.device, as_read))
    return model, replace(dealt, as_read=as_read)


def require_same_start(model: Transformer, ranks: Ranks, dealt: DealtOut | None) -> None:
    """Refuse ranks that do not all start from the same weights.

    Of a dealt out model each rank compares what it has read, and then what all of them hold
    together: that takes one whole tensor at a time.

    Refuses: ranks.differ. A broadcast would hide what is wrong.
    """
    if dealt is None:
        require_agreement(ranks, 0, {_WHAT: digest_of_tensors(model.parameters())})
        return
    require_agreement(ranks, 0, {_WHAT: digest_of_text(str(sorted(dealt.as_read.items())))})
    for name, parameter in model.named_parameters():
        if digest_of_tensors([whole(parameter)]) != dealt.as_read[name]:
            raise Refusal(
                "ranks.differ",
                f"step 0, {_WHAT}",
                found=f"{name}: what the ranks hold together is not what each of them has read",
                expected=f"the same bits, of which each of {ranks.world_size} ranks holds a part",
                fix="start again; if it happens again, look at the memory and the driver of these "
                "ranks' machine",
            )


def _noted(weights: Weights, device: torch.device, as_read: dict[str, int]) -> Weights:
    for name, tensor in weights:
        # Where counting is fast; the device has room for one tensor, which it will gather.
        there = tensor.to(device, torch.float32)
        as_read[name] = digest_of_tensors([there])
        yield name, there
