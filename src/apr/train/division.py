"""How a step is made to fit: as few micro-batches as there is memory for, and only then less kept.

Nobody has to choose either. What was asked for stays as it is; whether it may run is for
preflight.memory to say.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from apr.architecture import Architecture
from apr.train.config import DataParallel, TrainConfig
from apr.train.device_memory import DeviceMemory, read_device_memory
from apr.train.memory import estimate_memory, largest_fitting
from apr.train.ranks import ALONE, Ranks
from apr.train.resources_gate import workload
from apr.train.workload import Workload
from apr.units import format_count

# Where the matrix products of a GPU are as fast as they get; more tokens only take more memory.
_MOST_TOKENS_ON_CUDA = 1 << 16


def choose_division(
    work: Workload, device: DeviceMemory, *, activation_checkpointing: bool | None = None
) -> Workload:
    """The work with the fewest micro-batches per update that fit.

    Activations are computed twice only where not even single sequences fit without it, which
    takes a fifth to a third of the speed. Where nothing fits, the work takes the least memory it
    can. Where memory cannot be read, the bound on the tokens of a micro-batch decides alone.

    `work.batch_size` counts the sequences of one rank.
    """
    most_tokens = math.inf if device.on_cpu else _MOST_TOKENS_ON_CUDA
    usable_bytes = math.inf if device.usable_bytes is None else device.usable_bytes
    asked = activation_checkpointing
    choices = (False, True) if asked is None else (asked,)
    for recomputed in choices:
        tried = replace(work, activation_checkpointing=recomputed)
        grad_accum = largest_fitting(tried, usable_bytes, most_tokens=most_tokens)
        if grad_accum is not None:
            return replace(tried, grad_accum=grad_accum)
    return replace(work, grad_accum=work.batch_size, activation_checkpointing=choices[-1])


def divided(
    config: TrainConfig,
    architecture: Architecture,
    *,
    num_documents: int = 0,
    ranks: Ranks = ALONE,
    device: DeviceMemory | None = None,
    notify: Callable[[str], None] = lambda _text: None,
) -> TrainConfig:
    """The configuration with every choice made; each one that was asked for stays.

    Ranks divide the batch before micro-batches do; the first one chooses for all, since memory is
    not the same everywhere. `device` is asked instead of the one here.
    """
    asked = (config.grad_accum, config.activation_checkpointing)
    if None not in asked and (config.data_parallel != "auto" or not ranks.are_many):
        return config
    device = device or read_device_memory(config.device).shared_by(ranks.local_world_size)
    chosen = ranks.same_as_first(_choices(config, architecture, device, num_documents, ranks))
    grad_accum = chosen["grad_accum"]
    if config.grad_accum is None and grad_accum > 1:
        tokens = format_count(config.batch_tokens // (grad_accum * ranks.world_size))
        notify(f"memory: a batch is computed as {grad_accum} micro-batches of {tokens} tokens")
    if config.activation_checkpointing is None and chosen["activation_checkpointing"]:
        notify(
            "memory: activations are computed a second time instead of kept, which is slower "
            "(--no-activation-checkpointing demands the opposite)"
        )
    if config.data_parallel == "auto" and chosen["data_parallel"] == "fsdp":
        notify("memory: the model is dealt out over the ranks (--data-parallel ddp demands copies)")
    return config.model_copy(update=chosen)


def _choices(
    config: TrainConfig,
    architecture: Architecture,
    device: DeviceMemory,
    num_documents: int,
    ranks: Ranks,
) -> dict[str, Any]:
    """A copy of the model on every rank where that fits, else dealt out; then the micro-batches."""

    def under(kind: DataParallel) -> Workload:
        dealt = config.model_copy(update={"data_parallel": kind})
        work = workload(dealt, architecture, device, num_documents=num_documents, ranks=ranks)
        chosen = choose_division(
            work, device, activation_checkpointing=config.activation_checkpointing
        )
        return replace(chosen, grad_accum=config.grad_accum or chosen.grad_accum)

    kind, usable_bytes = config.data_parallel, device.usable_bytes
    if ranks.are_many and kind == "auto":
        copied, dealt_out = (estimate_memory(under(each)).peak_bytes for each in ("ddp", "fsdp"))
        fits = usable_bytes is None or copied < usable_bytes
        # Muon turns whole matrices, and a small model that is gathered whole saves nothing.
        kind = "ddp" if fits or copied <= dealt_out or config.optimizer == "muon" else "fsdp"
    chosen = under(kind)
    return {
        "grad_accum": chosen.grad_accum,
        "activation_checkpointing": chosen.activation_checkpointing,
        "data_parallel": kind,
    }
