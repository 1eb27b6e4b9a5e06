"""Random numbers are put back on the device of a run, and on no other."""

from collections.abc import Callable

import pytest
import torch

from apr.train.repeatable import repeatable


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Four devices that are not there, and which of them were asked for their generator's state."""
    devices: list[int] = []

    def state(device: int) -> torch.Tensor:
        devices.append(device)
        return torch.zeros(1, dtype=torch.uint8)

    answers: dict[str, Callable[..., object]] = {
        "is_available": lambda: True,
        "device_count": lambda: 4,
        "current_device": lambda: 2,
        "get_rng_state": state,
        "set_rng_state": lambda _state, _device: None,
        "manual_seed_all": lambda _seed: None,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    return devices


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cpu", []), ("auto", [0]), ("cuda", [2]), ("cuda:3", [3]), ("cuda:4", [])],
)
def test_only_the_device_of_the_run_is_asked(
    asked: list[int], name: str, expected: list[int]
) -> None:
    """Each rank of eight would otherwise take memory on all eight devices."""
    with repeatable(name, seed=0):
        assert asked == expected


@pytest.mark.filterwarnings("ignore:CUDA reports that you have 4 available devices")
def test_the_plain_way_asks_all_of_them(asked: list[int]) -> None:
    """The planted fault, which what is asked above would have shown."""
    with torch.random.fork_rng():
        assert asked == [0, 1, 2, 3]


def test_without_a_device_nobody_is_asked() -> None:
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    before = torch.get_rng_state()
    with repeatable("cuda", seed=1):
        assert not torch.get_rng_state().equal(before)
    assert torch.get_rng_state().equal(before)
