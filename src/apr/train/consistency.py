"""Which fields of a configuration contradict each other."""

from apr.errors import UsageRefusal
from apr.train.config import TrainConfig
from apr.train.device_option import require_device
from apr.train.sources import require_mixture


def require_consistent(config: TrainConfig) -> None:
    """Refuse a configuration, its defaults filled in, that cannot be meant.

    Refuses: config.mixture-weights, config.mixture-without-val, config.init-missing,
    config.init-shape, config.muon-finetune, config.batch-not-divisible,
    config.warmup-longer-than-run, config.eval-longer-than-run, config.without-effect,
    config.device.
    """
    require_mixture(config.dataset, has_val=config.val_shard is not None)
    _require_start(config)
    _require_lengths(config)
    _require_effects(config)
    require_device(config.device)


def _require_start(config: TrainConfig) -> None:
    if config.mode == "finetune" and config.init is None:
        raise UsageRefusal(
            "config.init-missing",
            "--mode finetune",
            found="no initial weights",
            expected="a checkpoint to continue from",
            fix="name it with --init FILE.apr, or use --mode from-scratch",
        )
    if config.init is not None and (config.arch or config.vocab_size):
        given = f"--arch {config.arch}" if config.arch else f"--vocab-size {config.vocab_size}"
        raise UsageRefusal(
            "config.init-shape",
            given,
            found=f"it beside --init {config.init}",
            expected="the shape that the file says, every field of it",
            fix="drop the option; a model of another shape starts from scratch",
        )
    if config.optimizer == "muon" and config.mode == "finetune":
        raise UsageRefusal(
            "config.muon-finetune",
            "--optimizer muon",
            found="--mode finetune",
            expected="a run from scratch; a model that AdamW made is continued with AdamW",
            fix="drop --optimizer muon; if Muon made the model of --init, say --mode from-scratch",
        )


def _require_lengths(config: TrainConfig) -> None:
    assert config.warmup_steps is not None
    if config.batch_size % (config.grad_accum or 1):
        raise UsageRefusal(
            "config.batch-not-divisible",
            "--grad-accum",
            found=config.grad_accum,
            expected=f"a divisor of --batch-size ({config.batch_size})",
            fix="choose a batch size that the number of micro-batches divides",
        )
    if config.warmup_steps > config.num_steps:
        raise UsageRefusal(
            "config.warmup-longer-than-run",
            "--warmup-steps",
            found=config.warmup_steps,
            expected=f"at most --num-steps ({config.num_steps})",
            fix="shorten the warm-up",
        )
    if config.eval_every > config.num_steps:
        raise UsageRefusal(
            "config.eval-longer-than-run",
            "--eval-every",
            found=config.eval_every,
            expected=f"at most --num-steps ({config.num_steps})",
            fix="validate more often",
        )


def _require_effects(config: TrainConfig) -> None:
    if config.decay_fraction is not None and config.schedule != "wsd":
        raise UsageRefusal(
            "config.without-effect",
            "--decay-fraction",
            found=f"{config.decay_fraction} beside --schedule {config.schedule}",
            expected="--schedule wsd, the one that reads it",
            fix="drop it, or choose that schedule",
        )
    if config.target_val_loss is not None and not config.stop_at_target:
        raise UsageRefusal(
            "config.without-effect",
            "target_val_loss",
            found=f"{config.target_val_loss} beside stop_at_target = false",
            expected="a target, or none",
            fix="drop one of the two",
        )
