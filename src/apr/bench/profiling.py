"""A profile of training steps, as the operations that `bench.parts` adds up."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._inductor import config as inductor_config
from torch.autograd import DeviceType  # pyright: ignore[reportPrivateImportUsage]
from torch.profiler import ProfilerActivity, profile

from apr.bench.parts import Operation


def profile_steps(
    step: Callable[[], None], device: torch.device, *, num_steps: int
) -> tuple[list[Operation], float]:
    """The operations of some steps, and the seconds the steps took; `step` waits for its work."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    # There is one cycle; torch 2.11 warns that it would forget those before it.
    with profile(activities=activities, record_shapes=True, acc_events=True) as profiled:
        started_s = time.perf_counter()
        for _ in range(num_steps):
            step()
        elapsed_s = time.perf_counter() - started_s
    return list(_operations(profiled.events() or [], device)), elapsed_s


@contextmanager
def named_kernels() -> Iterator[None]:
    """Have kernels that are compiled for a CPU inside say their names to a profile.

    What was compiled before is forgotten, for it says nothing.
    """
    torch._dynamo.reset()
    with inductor_config.patch({"cpp.enable_kernel_profile": True}):
        yield


def _operations(events: Iterable[Any], device: torch.device) -> Iterator[Operation]:
    for event in events:
        if event.device_type != DeviceType.CPU:
            continue
        shapes = tuple(_shapes(event.input_shapes or ()))
        parents = tuple(_parents(event))
        if device.type == "cuda":
            for kernel in event.kernels:
                yield Operation(event.name, kernel.duration / 1e6, shapes, parents, kernel.name)
        else:
            yield Operation(event.name, event.self_cpu_time_total / 1e6, shapes, parents)


def _parents(event: Any) -> Iterator[str]:
    while (event := event.cpu_parent) is not None:
        yield event.name


def _shapes(shapes: Iterable[Any]) -> Iterator[tuple[int, ...]]:
    """The shapes of tensors; what stands for a number or a list of tensors is left out."""
    for shape in shapes:
        if shape and all(isinstance(size, int) for size in shape):
            yield tuple(shape)
