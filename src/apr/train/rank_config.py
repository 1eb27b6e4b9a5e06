"""What a configuration means on several ranks: whose device, how many rows, who holds the model.

Each rank has its own command line: that they say the same is compared, and not taken for granted.
"""

from collections.abc import Collection

from apr.errors import UsageRefusal
from apr.train.config import TrainConfig
from apr.train.ranks import Ranks

# A machine's own names for what is the same; what lies there is compared by `train.spread`.
_OF_ONE_MACHINE = {"dataset", "tokenizer", "run_dir", "val_shard", "init", "device"}


def for_ranks(config: TrainConfig, ranks: Ranks, *, asked: Collection[str]) -> TrainConfig:
    """The configuration of this rank; `asked` are the fields that somebody has just chosen.

    Refuses: config.batch-not-divisible, config.muon-dealt-out, config.ranks-share-a-device,
    config.without-effect, ranks.differ.
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
    require_same_options(config, ranks)
    if config.optimizer == "muon" and config.data_parallel == "fsdp":
        raise UsageRefusal(
            "config.muon-dealt-out",
            "--data-parallel fsdp",
            found="--optimizer muon, which turns whole matrices",
            expected="ddp, where every rank has them",
            fix="use --data-parallel ddp, or --optimizer adamw",
        )
    parts = (config.grad_accum or 1) * ranks.world_size
    if config.batch_size % parts:
        raise UsageRefusal(
            "config.batch-not-divisible",
            "--batch-size",
            found=f"{config.batch_size} for {ranks.world_size} ranks of {config.grad_accum or 1} "
            "micro-batches each",
            expected=f"a multiple of {parts}",
            fix="choose another batch size, --grad-accum or number of ranks",
        )
    return config.model_copy(update={"device": _device(config, ranks, asked)})


def require_same_options(config: TrainConfig, ranks: Ranks) -> None:
    """Refuse ranks of which one was asked for something else.

    Refuses: ranks.differ.
    """
    if not ranks.are_many:
        return
    from apr.train.agreement import digest_of_text, require_agreement

    options = config.model_dump(mode="json", exclude=_OF_ONE_MACHINE)
    require_agreement(
        ranks,
        0,
        {f"the option {name}": digest_of_text(repr(value)) for name, value in options.items()},
        fix="start every rank with the same command and the same configuration file",
    )


def with_same_micro_batches(config: TrainConfig, num_ranks: int, ranks: Ranks) -> TrainConfig:
    """The configuration of a run of `num_ranks` on others, whose passes are of the same size.

    Where these cannot divide them so, how many there are is chosen again.
    """
    num_passes = (config.grad_accum or 1) * num_ranks
    grad_accum = None if num_passes % ranks.world_size else num_passes // ranks.world_size
    return config.model_copy(update={"grad_accum": grad_accum})


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
    # Some launchers show each rank its own device alone.
    return f"cuda:{0 if torch.cuda.device_count() == 1 else ranks.local_rank}"
