"""How a step is made to fit: as few micro-batches as there is memory for, and only then less kept.

Nobody has to choose either. What was asked for stays as it is; whether it may run is for
preflight.memory to say.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from apr.architecture import Architecture
from apr.train.config import TrainConfig
from apr.train.device_memory import DeviceMemory, read_device_memory
from apr.train.memory import Workload, largest_fitting
from apr.train.resources_gate import workload
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
    num_ranks: int = 1,
    notify: Callable[[str], None] = lambda _text: None,
) -> TrainConfig:
    """The configuration with both choices made; each one that was asked for stays.

    `num_ranks` ranks share every micro-batch; they divide the batch.
    """
    if config.grad_accum is not None and config.activation_checkpointing is not None:
        return config
    device = read_device_memory(config.device)
    work = workload(config, architecture, device, num_documents=num_documents)
    assert work.batch_size % num_ranks == 0, "ranks that do not divide the batch are refused before"
    chosen = choose_division(
        replace(work, batch_size=work.batch_size // num_ranks),
        device,
        activation_checkpointing=config.activation_checkpointing,
    )
    grad_accum = config.grad_accum or chosen.grad_accum
    if config.grad_accum is None and grad_accum > 1:
        tokens = format_count(config.batch_tokens // grad_accum)
        notify(f"memory: a batch is computed as {grad_accum} micro-batches of {tokens} tokens")
    if config.activation_checkpointing is None and chosen.activation_checkpointing:
        notify(
            "memory: activations are computed a second time instead of kept, which is slower "
            "(--no-activation-checkpointing demands the opposite)"
        )
    return config.model_copy(
        update={
            "grad_accum": grad_accum,
            "activation_checkpointing": chosen.activation_checkpointing,
        }
    )
