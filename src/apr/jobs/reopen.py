"""A model file judged by a process that has never seen the run which made it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from apr.errors import Refusal
from apr.jobs.fresh_process import in_fresh_process
from apr.model.weights import load_model
from apr.shards.reader import ShardReader
from apr.train.allocator import keep_freed_memory
from apr.train.batches import TokenRows
from apr.train.config import TrainConfig
from apr.train.loss import summed_loss
from apr.train.repeatable import repeatable
from apr.train.validation import validate, whole_set

# The fresh process computes without compiled kernels, whose sums are ordered differently.
_TOLERANCE_NATS = 2e-3


@dataclass(frozen=True)
class Reopened:
    """What the fresh process measured, and the set it measured on."""

    loss_nats: float
    set_sha256: str


def require_same_loss(
    model_path: Path, config: TrainConfig, *, recorded_nats: float, set_sha256: str
) -> Reopened:
    """Open a model file in a new process and compare its held-out loss with the recorded one.

    Refuses: model.loss-differs, and whatever opening the file refuses.
    """
    assert config.val_shard is not None, "a reserved held-out set has no directory of its own"
    reopened = in_fresh_process(_measure, model_path, config)
    difference = abs(reopened.loss_nats - recorded_nats)
    if reopened.set_sha256 != set_sha256 or not difference <= _TOLERANCE_NATS:
        raise Refusal(
            "model.loss-differs",
            model_path,
            found=f"{reopened.loss_nats:.6f} nats on set {reopened.set_sha256[:12]}",
            expected=f"{recorded_nats:.6f} on set {set_sha256[:12]}, within {_TOLERANCE_NATS:g}",
            fix="the file is not the model that was measured; report this",
        )
    return reopened


def _measure(model_path: Path, config: TrainConfig) -> Reopened:
    assert config.val_shard is not None
    keep_freed_memory()
    loaded = load_model(model_path)
    assert loaded.tokenizer is not None
    loaded.model.compute_dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    shards = ShardReader.open(config.val_shard)
    rows = TokenRows(shards, 0, shards.num_tokens, config.seq_length)
    with repeatable("cpu", seed=config.seed), torch.no_grad():
        result = validate(
            loaded.model,
            whole_set(rows, loaded.tokenizer),
            batch_size=config.batch_size // (config.grad_accum or 1),
            document_mask=config.document_mask,
            summed_loss=summed_loss,
        )
    return Reopened(result.loss_nats, result.set_sha256)
