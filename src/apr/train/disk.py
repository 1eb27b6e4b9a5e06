"""How much of a disk a run takes at most, and how much is free where it will lie."""

import os
from dataclasses import dataclass
from pathlib import Path

from apr.architecture import Architecture
from apr.train.config import TrainConfig
from apr.train.hidden_matrices import num_moments

_FP32_BYTES = 4
# Per tensor: its place in the index, its sha256 in the metadata, padding up to its alignment.
_CONTAINER_TENSOR_BYTES = 300
# Per parameter tensor three entries in the header of a safetensors file, and a step count.
_STATE_TENSOR_BYTES = 400
# Random numbers, cursor, and the list of files with their hashes.
_CHECKPOINT_BYTES = 6 << 10
# Metadata of a container beside its tensors.
_CONTAINER_BYTES = 2 << 10
# Of a tokenizer.json: its vocabulary and merges as lists, and all of it packed.
_TOKENIZER_SHARE = 0.6
_LOG_LINE_BYTES = 200
_RECORD_BYTES = 64 << 10


@dataclass(frozen=True)
class DiskEstimate:
    """What lies in a run directory at its fullest, in bytes, and what is left at the end."""

    checkpoint_bytes: int
    """One checkpoint: weights, moments, tokenizer."""
    num_held: int
    """Checkpoints that are there at once when none is being written."""
    parts: dict[str, int]
    end_bytes: int

    @property
    def peak_bytes(self) -> int:
        """The sum of the parts."""
        return sum(self.parts.values())


def estimate_disk(
    config: TrainConfig, architecture: Architecture, *, tokenizer_bytes: int
) -> DiskEstimate:
    """All checkpoints that `keep` holds at once, the best, the one being written, and the rest.

    `tokenizer_bytes` is the size of tokenizer.json, which every container carries in two forms;
    zero where it is unknown.
    """
    num_tensors = len(architecture.parameter_shapes())
    weights = _FP32_BYTES * architecture.num_parameters
    model = weights + num_tensors * _CONTAINER_TENSOR_BYTES + _CONTAINER_BYTES
    model += round(_TOKENIZER_SHARE * tokenizer_bytes)
    checkpoint = model + _FP32_BYTES * num_moments(architecture, config.optimizer)
    checkpoint += num_tensors * _STATE_TENSOR_BYTES + _CHECKPOINT_BYTES
    written = num_checkpoints(config)
    # The best lies beside the latest only while it is older than all of them.
    held = min(config.keep + 1, written)
    # The last one is written while all others are there; the shipped model after it.
    in_writing = checkpoint if written > held else 0
    logs = _LOG_LINE_BYTES * (config.num_steps + written) + _RECORD_BYTES
    return DiskEstimate(
        checkpoint,
        held,
        {
            f"{held} checkpoints kept, the best included": held * checkpoint,
            "one being written, or model.apr": max(in_writing, model),
            "log, record and report": logs,
        },
        end_bytes=held * checkpoint + model + logs,
    )


def num_checkpoints(config: TrainConfig) -> int:
    """How many checkpoints a run may write: where one is due, or a validation finds the best."""
    every = min(config.checkpoint_every or config.eval_every, config.eval_every)
    return -(-config.num_steps // every)


def free_bytes(path: Path) -> tuple[int, Path] | None:
    """What an ordinary user may still write at the nearest directory that exists, and which it is.

    Quotas are not seen. None where the system does not say.
    """
    for place in (path, *path.parents):
        if place.is_dir():
            try:
                room = os.statvfs(place)
            except (OSError, AttributeError):
                return None
            return room.f_bavail * room.f_frsize, place
    return None
