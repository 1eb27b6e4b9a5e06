"""The same bits from the same step, and random numbers that come from a seed."""

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def repeatable(device_name: str, *, seed: int, deterministic: bool = False) -> Generator[None]:
    """Make the same step on the same device give the same bits, compiled kernels included.

    On a CPU always, as it costs nothing there; on a GPU with `deterministic`. Random numbers
    inside come from `seed`; the caller's own generator is left as it was.
    """
    on_cpu = device_name == "cpu" or (device_name == "auto" and not torch.cuda.is_available())
    before = torch.are_deterministic_algorithms_enabled()
    fill_before = torch.utils.deterministic.fill_uninitialized_memory  # pyright: ignore[reportAttributeAccessIssue]
    torch.use_deterministic_algorithms(on_cpu or deterministic or before)
    # Uninitialised memory is never read here; filling it would only cost time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    try:
        with torch.random.fork_rng(cuda_devices(device_name)):
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = fill_before  # pyright: ignore[reportAttributeAccessIssue]


def cuda_devices(device_name: str) -> list[int]:
    """The CUDA device that a name means, if it is there: all others are another process's.

    Whoever asks for the state of a device's generator takes memory on that device.
    """
    device = torch.device("cuda", 0) if device_name == "auto" else torch.device(device_name)
    if device.type != "cuda" or not torch.cuda.is_available():
        return []
    index = torch.cuda.current_device() if device.index is None else device.index
    return [index] if index < torch.cuda.device_count() else []
