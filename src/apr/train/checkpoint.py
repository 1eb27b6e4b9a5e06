"""Checkpoints that are verified or do not exist.

A checkpoint is a directory written beside its place, read back, hashed, and renamed into it;
`checkpoint.json` lists every file with size and sha256, and without it the directory does not
count. The weights are an `.apr` file of their own. What is written is a snapshot, so that training
may go on meanwhile.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from apr.architecture import Architecture
from apr.errors import DamagedFile, Refusal
from apr.files import atomic_directory, read_json, sha256_file, write_json
from apr.model.transformer import Transformer
from apr.model.weights import opened_weights, save_weights
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.optimizer import load_state_tensors
from apr.train.optimizer_state import StoredState, write_share
from apr.train.parts import put_weights
from apr.train.snapshot import RNG, Snapshot, take_snapshot
from apr.train.train_state import TrainState

_SCHEMA = "apr-checkpoint-v1"
_LISTING_LIMIT_BYTES = 1 << 20


def checkpoint_dir(run_dir: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return run_dir / "checkpoints" / f"step-{step:08d}"


def checkpoint_dirs(run_dir: Path) -> list[Path]:
    """Whatever lies where checkpoints do, the newest first."""
    return sorted((run_dir / "checkpoints").glob("step-" + "[0-9]" * 8), reverse=True)


def save_checkpoint(
    run_dir: Path,
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    state: TrainState,
    *,
    tokenizer: Tokenizer,
    provenance: list[dict[str, Any]],
) -> Path:
    """Write one checkpoint and wait for it; a run under way has `CheckpointWriter`.

    Refuses: as `write_checkpoint`.
    Writes: RUN/checkpoints/step-NNNNNNNN/.
    """
    snapshot = take_snapshot(model, optimizer, state)
    return write_checkpoint(run_dir, snapshot, tokenizer=tokenizer, provenance=provenance)


def write_checkpoint(
    run_dir: Path,
    snapshot: Snapshot,
    *,
    tokenizer: Tokenizer,
    provenance: list[dict[str, Any]],
    carried: Mapping[str, Any] | None = None,
    collect: Callable[[Path], None] | None = None,
) -> Path:
    """Write, read back, hash and rename one checkpoint.

    Each file is compared with what was in memory, then hashed once from the file system. `collect`
    puts the other ranks' shares into a directory.

    Refuses: files.io-failed, model.non-finite, checkpoint.read-back, and what the writers of the
    two formats refuse.
    Writes: RUN/checkpoints/step-NNNNNNNN/.
    """
    assert collect or snapshot.share.num_ranks == 1, "nobody collects the other ranks' shares"
    target = checkpoint_dir(run_dir, snapshot.state.step)
    snapshot.settle()
    with atomic_directory(target, overwrite=True) as staged:
        save_weights(
            staged / "model.apr",
            snapshot.architecture,
            snapshot.weights,
            tokenizer=tokenizer,
            provenance=provenance,
            carried=carried,
        )
        write_share(staged / snapshot.share.file_name, snapshot.share)
        if collect:
            collect(staged)
        write_json(staged / "state.json", asdict(snapshot.state))
        listing = {
            file.name: {"size_bytes": file.stat().st_size, "sha256": sha256_file(file)}
            for file in sorted(staged.iterdir())
        }
        write_json(
            staged / "checkpoint.json",
            {"schema": _SCHEMA, "step": snapshot.state.step, "files": listing},
        )
        if read_state(staged) != snapshot.state or _read_listing(staged) != listing:
            raise DamagedFile(
                "checkpoint.read-back",
                target,
                found=f"state {read_state(staged)}",
                expected=f"{snapshot.state}, as it was in memory",
                fix="check the disk, then resume the run",
            )
    return target


def load_checkpoint(
    directory: Path, model: Transformer, optimizer: torch.optim.Optimizer
) -> TrainState:
    """Put weights, moments and RNG back; return the rest of the state.

    Refuses: as its two halves.
    """
    load_weights(directory, model)
    return load_progress(directory, model, optimizer)


def load_weights(directory: Path, model: Transformer) -> None:
    """Put the weights of a checkpoint into a model, of which each rank may hold a part.

    Refuses: as `weights_of`.
    """
    put_weights(model, weights_of(directory, model.architecture))


def weights_of(directory: Path, architecture: Architecture) -> Iterator[tuple[str, Tensor]]:
    """The weights of a checkpoint by name, one after the other, once it is verified.

    Refuses: checkpoint.damaged, checkpoint.other-model.
    """
    require_verified(directory)
    with opened_weights(directory / "model.apr") as stored:
        if stored.architecture != architecture:
            raise Refusal(
                "checkpoint.other-model",
                directory,
                found=str(stored.architecture),
                expected=str(architecture),
                fix="resume the run this checkpoint belongs to",
            )
        yield from stored.tensors()


def load_progress(
    directory: Path, model: Transformer, optimizer: torch.optim.Optimizer
) -> TrainState:
    """Put moments and RNG back, after the weights; return the rest of the state.

    Refuses: checkpoint.damaged.
    """
    state = read_state(directory)
    try:
        with StoredState(directory) as stored:
            rng_state = stored[RNG]
            # Before the first applied update an optimizer has no state.
            if len(stored) > 1 or state.tokens_seen:
                load_state_tensors(model, optimizer, stored, beside={RNG})
    except (SafetensorError, KeyError) as err:
        raise _damaged(directory, f"{type(err).__name__}: {err}") from err
    torch.set_rng_state(rng_state.cpu())
    return state


def require_verified(directory: Path) -> None:
    """Check that a directory holds exactly what its checkpoint.json says.

    Refuses: checkpoint.damaged.
    """
    for name, facts in _read_listing(directory).items():
        path = directory / name
        found = {"size_bytes": path.stat().st_size, "sha256": sha256_file(path)}
        if found != facts:
            raise _damaged(directory, f"{name} is not the file that was written")


def latest_checkpoint(run_dir: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, and why newer ones were passed over."""
    passed_over: list[str] = []
    for directory in checkpoint_dirs(run_dir):
        try:
            require_verified(directory)
        except Refusal as refusal:
            passed_over.append(f"{directory.name}: {refusal.found}")
            continue
        return directory, passed_over
    return None, passed_over


def read_state(directory: Path) -> TrainState:
    """What a checkpoint holds beside tensors.

    Refuses: checkpoint.damaged.
    """
    fields = read_json(
        directory / "state.json",
        limit_bytes=_LISTING_LIMIT_BYTES,
        id="checkpoint.damaged",
        what="a checkpoint's state",
    )
    try:
        return TrainState(**fields)
    except TypeError as err:
        raise _damaged(directory, f"state.json: {err}") from err


def _read_listing(directory: Path) -> dict[str, Any]:
    """The files of a directory as its checkpoint.json has them; they are there, and no others."""
    listing_path = directory / "checkpoint.json"
    if not listing_path.is_file():
        raise _damaged(directory, "no checkpoint.json: it was never finished")
    listing = read_json(
        listing_path,
        limit_bytes=_LISTING_LIMIT_BYTES,
        id="checkpoint.damaged",
        what="a checkpoint's file list",
    )
    files = listing.get("files") if isinstance(listing, dict) else None
    if not isinstance(files, dict) or not files or listing.get("schema") != _SCHEMA:
        raise _damaged(directory, "checkpoint.json is not a file list")
    present = {file.name for file in directory.iterdir()} - {"checkpoint.json"}
    if present != set(files):
        raise _damaged(directory, "other files than listed: " + ", ".join(present ^ set(files)))
    return files


def _damaged(directory: Path, found: str) -> DamagedFile:
    return DamagedFile(
        "checkpoint.damaged",
        directory,
        found=found,
        expected="the files checkpoint.json lists",
        fix="resume from an earlier checkpoint: delete this directory",
    )
