"""Checkpoints written beside the training: whose values they hold, and what fails where."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.unit.train.checkpoint_fixture import Trained, trained

from apr.errors import DamagedFile, IoFailed
from apr.train.checkpoint import (
    checkpoint_dir,
    load_checkpoint,
    require_verified,
    save_checkpoint,
    write_checkpoint,
)
from apr.train.checkpoint_writer import CheckpointWriter
from apr.train.snapshot import Snapshot, SnapshotMemory, take_snapshot
from apr.train.train_state import TrainState


def nothing() -> None:
    """What happens before a checkpoint is written, where no fault is planted."""


@contextmanager
def writer(
    run_dir: Path, now: Trained, before_writing: Callable[[], None] = nothing
) -> Generator[CheckpointWriter]:
    run_dir.mkdir(exist_ok=True)
    with CheckpointWriter(
        run_dir,
        now.model,
        now.optimizer,
        tokenizer=now.tokenizer,
        keep=2,
        before_writing=before_writing,
    ) as checkpoints:
        yield checkpoints


def stored(run_dir: Path, step: int) -> tuple[dict[str, torch.Tensor], TrainState]:
    """What a checkpoint gives to a run that resumes from it."""
    other = trained()
    state = load_checkpoint(checkpoint_dir(run_dir, step), other.model, other.optimizer)
    return other.values(), state


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(tensor.equal(other[name]) for name, tensor in one.items())


def test_f36_a_checkpoint_holds_the_values_of_the_step_it_claims(tmp_path: Path) -> None:
    """Everything changes between the request and the first byte that is written."""
    now, released = trained(), threading.Event()
    with (
        torch.random.fork_rng(),
        writer(tmp_path, now, lambda: assert_set(released)) as checkpoints,
    ):
        state = TrainState(step=1, tokens_seen=64)
        claimed = now.values()
        checkpoints.save(state, provenance=[])
        now.step(2)
        torch.rand(1)
        state.step, state.tokens_seen = 2, 128
        later = now.values()
        changed = [name for name, tensor in later.items() if not tensor.equal(claimed[name])]
        assert len(changed) == len(later)
        released.set()
        checkpoints.wait(state)
        found, state_found = stored(tmp_path, 1)
    assert same(found, claimed)
    assert (state_found.step, state_found.tokens_seen) == (1, 64)


def assert_set(event: threading.Event) -> None:
    assert event.wait(timeout=60)


def test_f36_a_second_checkpoint_waits_for_the_first(tmp_path: Path) -> None:
    """They share the memory of the copy."""
    now, released = trained(), threading.Event()
    with writer(tmp_path, now, lambda: assert_set(released)) as checkpoints:
        first = now.values()
        checkpoints.save(TrainState(step=1), provenance=[])
        now.step(2)
        second = now.values()
        # The training thread is held up by the next line, so another one lets the first go on.
        threading.Timer(0.3, released.set).start()
        checkpoints.save(TrainState(step=2), provenance=[])
        checkpoints.wait(TrainState())
    assert same(stored(tmp_path, 1)[0], first)
    assert same(stored(tmp_path, 2)[0], second)


def poll_for_a_minute(checkpoints: CheckpointWriter) -> None:
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        checkpoints.poll(TrainState(step=1))


WAYS: dict[str, Callable[[CheckpointWriter], None]] = {
    "next save": lambda checkpoints: checkpoints.save(TrainState(step=2), provenance=[]),
    "same step again": lambda checkpoints: checkpoints.save(TrainState(step=1), provenance=[]),
    "wait": lambda checkpoints: checkpoints.wait(TrainState(step=1)),
    "poll": poll_for_a_minute,
}


@pytest.mark.parametrize("surfaces", WAYS)
def test_f36_what_fails_in_the_background_is_raised_in_the_training(
    tmp_path: Path, surfaces: str
) -> None:
    now = trained()

    def take_the_place_away() -> None:
        (tmp_path / "checkpoints").rmdir()
        (tmp_path / "checkpoints").write_text("in the way")

    with writer(tmp_path, now, take_the_place_away) as checkpoints:
        checkpoints.save(TrainState(step=1), provenance=[])
        with pytest.raises(IoFailed) as refused:
            WAYS[surfaces](checkpoints)
    assert (refused.value.id, refused.value.exit_code) == ("files.io-failed", 7)


def test_leaving_waits_for_the_last_checkpoint(tmp_path: Path) -> None:
    now = trained()
    with writer(tmp_path, now, lambda: time.sleep(0.2)) as checkpoints:
        checkpoints.save(TrainState(step=1), provenance=[])
    require_verified(checkpoint_dir(tmp_path, 1))


def test_a_step_is_saved_once(tmp_path: Path) -> None:
    """Its second checkpoint would take the place of the first, and a kill could hit between."""
    now, written = trained(), list[int]()
    with writer(tmp_path, now, lambda: written.append(1)) as checkpoints:
        for _ in range(2):
            checkpoints.save(TrainState(step=1), provenance=[])
        checkpoints.save(TrainState(step=2), provenance=[])
    assert len(written) == 2


def test_the_time_of_a_checkpoint_is_what_training_waited_for(tmp_path: Path) -> None:
    now, state = trained(), TrainState(step=1)
    with writer(tmp_path, now, lambda: time.sleep(0.5)) as checkpoints:
        checkpoints.save(state, provenance=[])
        copied_s = state.checkpoint_s
        assert 0 < copied_s < 0.5
        while not checkpoint_dir(tmp_path, 1).exists():
            time.sleep(0.01)
        checkpoints.wait(state)
    assert state.checkpoint_write_s >= 0.5 > state.checkpoint_s >= copied_s


def test_the_copy_reuses_its_memory(tmp_path: Path) -> None:
    def values_of(snapshot: Snapshot) -> dict[str, torch.Tensor]:
        tensors = snapshot.weights | snapshot.share.tensors
        return {name.replace("rng/torch", "rng"): tensor for name, tensor in tensors.items()}

    def addresses(snapshot: Snapshot) -> list[int]:
        return [tensor.data_ptr() for n, tensor in values_of(snapshot).items() if n != "rng"]

    now = trained()
    memory = SnapshotMemory()
    first = take_snapshot(now.model, now.optimizer, TrainState(step=1), memory=memory)
    before = addresses(first)
    now.step(2)
    second = take_snapshot(now.model, now.optimizer, TrainState(step=2), memory=memory)
    live = [parameter.data_ptr() for parameter in now.model.parameters()]
    assert addresses(second) == before
    assert not set(before) & set(live)
    assert same(values_of(second), now.values())


def test_the_state_file_is_the_one_the_reference_library_writes(tmp_path: Path) -> None:
    now = trained()
    directory = now.save(tmp_path, 1)
    tensors = load_file(directory / "state.safetensors")
    assert {name.rsplit("/")[-1] for name in tensors} == {"exp_avg", "exp_avg_sq", "step", "torch"}
    save_file(tensors, tmp_path / "theirs")
    assert (tmp_path / "theirs").read_bytes() == (directory / "state.safetensors").read_bytes()


def test_a_state_that_does_not_read_back_is_no_checkpoint(tmp_path: Path) -> None:
    """JSON turns a tuple into a list; a resume would go on from another state."""
    now = trained()
    state = TrainState(step=1, ended=("target_met",))  # pyright: ignore[reportArgumentType]
    snapshot = take_snapshot(now.model, now.optimizer, state)
    with pytest.raises(DamagedFile) as refused:
        write_checkpoint(tmp_path, snapshot, tokenizer=now.tokenizer, provenance=[])
    assert refused.value.id == "checkpoint.read-back"
    assert not (tmp_path / "checkpoints").exists()
    good = save_checkpoint(
        tmp_path,
        now.model,
        now.optimizer,
        TrainState(step=1, ended="target_met"),
        tokenizer=now.tokenizer,
        provenance=[],
    )
    require_verified(good)
