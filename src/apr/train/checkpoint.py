"""Checkpoints that are verified or do not exist.

A checkpoint is a directory written beside its place, hashed, read back, and renamed into it;
`checkpoint.json` lists every file with size and sha256, and without it the directory does not
count. The weights are an `.apr` file of their own.
"""

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from apr.errors import DamagedFile, IoFailed, Refusal
from apr.files import atomic_directory, io_refusals, read_json, sha256_file, write_json
from apr.model.transformer import Transformer
from apr.model.weights import load_model, save_model
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.guards import GuardState
from apr.train.optimizer import load_state_tensors, state_tensors

_SCHEMA = "apr-checkpoint-v1"
_LISTING_LIMIT_BYTES = 1 << 20
_RNG = "rng/torch"


Ending = Literal["target_met", "budget_exhausted", "early_stop", "interrupted"]


@dataclass
class TrainState:
    """Everything a resume needs beside weights, moments and RNG.

    The data cursor is `step`: batches are a function of it. `ended` is the word of a run that
    needs no further step. `start_loss_nats` is the periodic set's loss before step 1.
    """

    step: int = 0
    tokens_seen: int = 0
    tokens_by_source: list[int] = field(default_factory=list[int])
    """Of `tokens_seen`, those of each source."""
    best_step: int | None = None
    best_loss_nats: float | None = None
    improved_loss_nats: float | None = None
    stale_validations: int = 0
    start_loss_nats: float | None = None
    guard: GuardState = field(default_factory=GuardState)
    ended: Ending | None = None
    train_s: float = 0.0
    data_s: float = 0.0
    validation_s: float = 0.0
    checkpoint_s: float = 0.0

    def __post_init__(self) -> None:
        """Take the guard's state as JSON has it, too."""
        if isinstance(self.guard, dict):
            self.guard = GuardState(**self.guard)

    @property
    def elapsed_s(self) -> float:
        """Time spent on the run so far, over all its sittings."""
        return self.train_s + self.validation_s + self.checkpoint_s


def checkpoint_dir(run_dir: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return run_dir / "checkpoints" / f"step-{step:08d}"


def save_checkpoint(
    run_dir: Path,
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    state: TrainState,
    *,
    tokenizer: Tokenizer,
    provenance: list[dict[str, Any]],
) -> Path:
    """Write, hash, read back and rename one checkpoint.

    Refuses: files.io-failed, checkpoint.read-back.
    Writes: RUN/checkpoints/step-NNNNNNNN/.
    """
    target = checkpoint_dir(run_dir, state.step)
    with atomic_directory(target, overwrite=True) as staged:
        save_model(staged / "model.apr", model, tokenizer=tokenizer, provenance=provenance)
        tensors = state_tensors(model, optimizer) | {_RNG: torch.get_rng_state()}
        try:
            save_file(tensors, staged / "state.safetensors")
        except SafetensorError as err:
            raise IoFailed(
                "files.io-failed",
                target,
                found=str(err),
                expected="a writable file system",
                fix="free space, then resume the run",
            ) from err
        write_json(staged / "state.json", asdict(state))
        listing = {
            file.name: {"size_bytes": file.stat().st_size, "sha256": sha256_file(file)}
            for file in sorted(staged.iterdir())
        }
        write_json(
            staged / "checkpoint.json",
            {"schema": _SCHEMA, "step": state.step, "files": listing},
        )
        require_verified(staged)
    return target


def load_checkpoint(
    directory: Path, model: Transformer, optimizer: torch.optim.Optimizer
) -> TrainState:
    """Put weights, moments and RNG back; return the rest of the state.

    Refuses: checkpoint.damaged, checkpoint.other-model.
    """
    require_verified(directory)
    loaded = load_model(directory / "model.apr").model
    if loaded.architecture != model.architecture:
        raise Refusal(
            "checkpoint.other-model",
            directory,
            found=str(loaded.architecture),
            expected=str(model.architecture),
            fix="resume the run this checkpoint belongs to",
        )
    model.load_state_dict(loaded.state_dict(), strict=True)
    device = str(model.head_weight.device)
    state = read_state(directory)
    try:
        tensors = load_file(directory / "state.safetensors", device=device)
        rng_state = tensors.pop(_RNG)
        # Before the first applied update an optimizer has no state.
        if tensors or state.tokens_seen:
            load_state_tensors(model, optimizer, tensors)
    except (SafetensorError, KeyError) as err:
        raise _damaged(directory, f"{type(err).__name__}: {err}") from err
    torch.set_rng_state(rng_state.cpu())
    return state


def require_verified(directory: Path) -> None:
    """Check that a directory holds exactly what its checkpoint.json says.

    Refuses: checkpoint.damaged.
    """
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
    for name, facts in files.items():
        path = directory / name
        found = {"size_bytes": path.stat().st_size, "sha256": sha256_file(path)}
        if found != facts:
            raise _damaged(directory, f"{name} is not the file that was written")


def latest_checkpoint(run_dir: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, and why newer ones were passed over."""
    passed_over: list[str] = []
    for directory in sorted((run_dir / "checkpoints").glob("step-" + "[0-9]" * 8), reverse=True):
        try:
            require_verified(directory)
        except Refusal as refusal:
            passed_over.append(f"{directory.name}: {refusal.found}")
            continue
        return directory, passed_over
    return None, passed_over


def prune(run_dir: Path, *, keep: int) -> None:
    """Delete all but the latest `keep` finished checkpoints and those they call the best.

    Falling back to an older checkpoint then still finds its best one.
    """
    finished = sorted(
        path.parent for path in (run_dir / "checkpoints").glob("step-*/checkpoint.json")
    )
    kept = set(finished[-keep:])
    for directory in finished[-keep:]:
        best_step = read_state(directory).best_step
        if best_step is not None:
            kept.add(checkpoint_dir(run_dir, best_step))
    for directory in set(finished) - kept:
        with io_refusals(directory):
            # Without its list the directory no longer counts, whatever happens next.
            (directory / "checkpoint.json").unlink()
            shutil.rmtree(directory)


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


def _damaged(directory: Path, found: str) -> DamagedFile:
    return DamagedFile(
        "checkpoint.damaged",
        directory,
        found=found,
        expected="the files checkpoint.json lists",
        fix="resume from an earlier checkpoint: delete this directory",
    )
