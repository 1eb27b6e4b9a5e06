"""Copies in the host's memory: whose values they hold, and that one taken too late is refused."""

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.unit.train.checkpoint_fixture import trained
from torch import Tensor

from apr.errors import DamagedFile
from apr.train.checkpoint import checkpoint_dir, require_verified
from apr.train.checkpoint_writer import CheckpointWriter
from apr.train.host_copies import HostCopies
from apr.train.train_state import TrainState


class OnCuda(Tensor):
    """A tensor of the CPU that says it is on a CUDA device, which is not there."""

    device = torch.device("cuda", 0)  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]


class Stream:
    """As a stream of CUDA's: tells what it was asked for, in order."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name, self.told = name, told

    def wait_stream(self, other: "Stream") -> None:
        self.told.append(f"{self.name} waits for {other.name}")

    def wait_event(self, event: SimpleNamespace) -> None:
        self.told.append(f"{self.name} waits for {event.of}")

    def record_event(self) -> Any:
        self.told.append(f"{self.name} is noted")
        return SimpleNamespace(
            of=self.name, synchronize=lambda: self.told.append(f"host waits for {self.name}")
        )


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a CUDA device, and the library behind it, would be asked for, in order."""
    asked = list[str]()

    @contextmanager
    def on(stream: Stream) -> Generator[None]:
        asked.append(f"copies on {stream.name}")
        yield

    library = SimpleNamespace(
        cudaHostRegister=lambda _at, size, _flags: asked.append(f"lock {size}") or 0,
        cudaHostUnregister=lambda _at: asked.append("unlock"),
    )
    training = Stream("training", asked)
    monkeypatch.setattr(torch.cuda, "Stream", lambda _device: Stream("beside", asked))
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device=None: training)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: library)
    return asked


CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def tensors(device: str = "cpu") -> dict[str, Tensor]:
    """Of every kind that a checkpoint has, and lengths that no alignment divides."""
    made = {
        "matrix": torch.randn(7, 13),
        "count": torch.tensor(3.0),
        "empty": torch.empty(0, 5),
        "half": torch.randn(33).to(torch.bfloat16),
        "transposed": torch.randn(4, 6).t(),
        "bytes": torch.arange(9, dtype=torch.uint8),
    }
    return {name: tensor.to(device) for name, tensor in made.items()}


def test_a_copy_has_the_values_and_a_memory_of_its_own() -> None:
    live, copies = tensors(), HostCopies()
    taken = copies.take(live)
    copies.wait()
    before = {name: tensor.clone() for name, tensor in live.items()}
    for tensor in live.values():
        tensor.zero_()
    assert taken.keys() == live.keys()
    for name, copy in taken.items():
        assert (copy.dtype, copy.shape) == (live[name].dtype, live[name].shape)
        assert copy.equal(before[name]), name


def test_the_next_copy_takes_the_place_of_the_first() -> None:
    live, copies = tensors(), HostCopies()
    first = {name: tensor.data_ptr() for name, tensor in copies.take(live).items()}
    live["matrix"].add_(1)
    second = copies.take(live)
    assert {name: tensor.data_ptr() for name, tensor in second.items()} == first
    assert second["matrix"].equal(live["matrix"])


def test_who_does_not_keep_a_copy_has_no_memory_for_it() -> None:
    copies = HostCopies()
    assert copies.take(tensors(), keep=False) == {}
    copies.wait()


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("name", ["matrix", "count", "half", "transposed", "bytes"])
def test_a_copy_that_is_not_what_was_there_is_refused(name: str) -> None:
    """As one is that was taken while an update was under way."""
    live = {each: tensor.as_subclass(OnCuda) for each, tensor in tensors().items()}
    copies = HostCopies()
    taken = copies.take(live)
    copies.wait()
    copies.take(live)
    taken[name].view(-1)[-1] += 1
    with pytest.raises(DamagedFile, match=name) as refused:
        copies.wait()
    assert refused.value.id == "checkpoint.read-back"
    copies.take(live)
    copies.wait()
    copies.release()


def test_nothing_is_compared_where_the_device_has_waited() -> None:
    """On a CPU: whoever changes a copy that is there changes it knowingly."""
    live, copies = tensors(), HostCopies()
    taken = copies.take(live)
    taken["matrix"].add_(1)
    copies.wait()


def test_the_order_in_which_a_device_would_be_asked(told: list[str]) -> None:
    """Without one: that it copies beside its work, after what it was asked for before."""
    live, copies = {"a": torch.randn(5, 6).as_subclass(OnCuda)}, HostCopies()
    taken = copies.take(live)
    copies.hold()
    copies.wait()
    copies.release()
    assert taken["a"].equal(live["a"].as_subclass(Tensor))
    assert told == [
        "lock 128",
        "beside waits for training",
        "copies on beside",
        "beside is noted",
        "training waits for beside",
        "host waits for beside",
        "host waits for beside",
        "unlock",
    ]


@CUDA
def test_a_device_writes_beside_its_work_and_an_update_waits() -> None:
    live, copies = {"large": torch.randn(1 << 26, device="cuda")}, HostCopies()
    before = live["large"].cpu()
    taken = copies.take(live)
    assert taken["large"].is_pinned()
    copies.hold()
    live["large"].add_(1)
    copies.wait()
    assert taken["large"].equal(before)
    copies.release()
    assert not taken["large"].is_pinned()


@CUDA
def test_an_update_that_does_not_wait_is_found_out() -> None:
    live, copies = {"large": torch.randn(1 << 28, device="cuda")}, HostCopies()
    copies.take(live)
    copies.wait()
    copies.take(live)
    with torch.cuda.stream(torch.cuda.Stream()):
        # Half of it is changed while the copy, which takes milliseconds, is under way.
        torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())
        live["large"].add_(1)
    with pytest.raises(DamagedFile, match="large"):
        copies.wait()
    torch.cuda.synchronize()
    copies.release()


@CUDA
def test_a_checkpoint_holds_the_step_that_was_asked_for(tmp_path: Path) -> None:
    now = trained()
    now.model.to("cuda")
    now.optimizer.state.clear()
    with CheckpointWriter(
        tmp_path, now.model, now.optimizer, tokenizer=now.tokenizer, keep=2,
        before_writing=lambda: None,
    ) as checkpoints:  # fmt: skip
        for step in (2, 3, 4):
            now.step(step)
            checkpoints.save(TrainState(step=step, tokens_seen=step), provenance=[])
    require_verified(checkpoint_dir(tmp_path, 4))
