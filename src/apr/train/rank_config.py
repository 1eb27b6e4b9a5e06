"""What a configuration means on several ranks: whose device, how many rows, who holds the model."""

from collections.abc import Collection
from dataclasses import replace

from apr.architecture import Architecture
from apr.errors import UsageRefusal
from apr.train.config import TrainConfig
from apr.train.device_memory import read_device_memory
from apr.train.memory import estimate_memory
from apr.train.ranks import Ranks
from apr.train.resources_gate import USABLE, workload


def for_ranks(config: TrainConfig, ranks: Ranks, *, asked: Collection[str]) -> TrainConfig:
    """The configuration of this rank; `asked` are the fields that somebody has just chosen.

    Refuses: config.batch-not-divisible, config.ranks-share-a-device, config.without-effect.
    """
    if not ranks.are_many:
        if config.data_parallel != "auto" and "data_parallel" in asked:
            raise UsageRefusal(
                "config.without-effect",
                "--data-parallel",
                found=f"{config.data_parallel} for one process",
                expected="several, as torchrun starts them",
                fix="torchrun --nproc-per-node N -m apr pretrain ..., or drop the option",
            )
        # A run that several ranks began may go on with one.
        return config.model_copy(update={"data_parallel": "auto"})
    parts = config.grad_accum * ranks.world_size
    if config.batch_size % parts:
        raise UsageRefusal(
            "config.batch-not-divisible",
            "--batch-size",
            found=f"{config.batch_size} for {ranks.world_size} ranks of {config.grad_accum} "
            "micro-batches each",
            expected=f"a multiple of {parts}",
            fix="choose another batch size, --grad-accum or number of ranks",
        )
    return config.model_copy(update={"device": _device(config, ranks, asked)})


def _device(config: TrainConfig, ranks: Ranks, asked: Collection[str]) -> str:
    """Each rank of a machine has a CUDA device of its own, or all of them the CPU."""
    name = config.device
    if ":" in name and "device" in asked:
        raise UsageRefusal(
            "config.ranks-share-a-device",
            f"--device {name}",
            found=f"one device for {ranks.world_size} ranks",
            expected="cuda, which gives each rank of a machine its own, or cpu",
            fix="use --device cuda; CUDA_VISIBLE_DEVICES says which ones are there",
        )
    if name == "cpu":
        return name
    import torch

    if name == "auto" and not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{ranks.local_rank}"


def choose_data_parallel(config: TrainConfig, architecture: Architecture, ranks: Ranks) -> str:
    """`ddp` where a rank's device holds the whole training state, else `fsdp`.

    The first rank decides.
    """
    if not ranks.are_many or config.data_parallel != "auto":
        return config.data_parallel
    device = read_device_memory(config.device)
    work = workload(config, architecture, device)
    work = replace(work, grad_accum=work.grad_accum * ranks.world_size)
    available_bytes = device.available_bytes
    if available_bytes is not None and device.on_cpu:
        available_bytes //= ranks.local_world_size
    # Where the memory is unknown the whole model is tried, as one process would.
    fits = available_bytes is None or estimate_memory(work).peak_bytes < USABLE * available_bytes
    return ranks.same_as_first("ddp" if fits else "fsdp")
