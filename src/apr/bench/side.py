"""What one side of a comparison measured, and the clock that every side is timed by."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from apr.bench.ceiling import Ceiling, measure_ceiling
from apr.bench.parts import Parts
from apr.bench.peak_memory import peak_memory_bytes
from apr.bench.reference import Workload
from apr.bench.utilization import Utilization, utilization
from apr.errors import Refusal
from apr.progress import Progress, Report

# Random ids can only be guessed; a mean loss this far from a guess is not a loss in nats.
_LOSS_BAND = 0.15


@dataclass(frozen=True)
class Side:
    """One side of one round, measured in a process of its own."""

    settings: dict[str, Any]
    num_parameters: int
    """Counted from the tensors that were trained."""
    warmup_s: float
    """Seconds of the steps that do not count: allocation, compilation."""
    step_s: tuple[float, ...]
    data_wait_s: tuple[float, ...] | None
    """Seconds of each step until its batch was there; part of `step_s`."""
    mean_loss_nats: float
    weights_moved: bool
    peak_memory_bytes: int | None
    peak_memory_source: str
    ceiling: Ceiling
    what: str = ""
    """What it is, in a sentence."""
    copy_s: float | None = None
    """Seconds a checkpoint's copy of the state holds training up."""
    parts: Parts | None = None
    gradients: dict[str, Any] | None = None
    """The verdict of preflight.gradients on the kernels that were timed."""

    def tokens_per_s(self, work: Workload) -> float:
        """Tokens of a step over the median of the steps."""
        return work.config.batch_tokens / statistics.median(self.step_s)

    def utilization(self, work: Workload) -> Utilization:
        """The rate as a share of the ceiling that was measured beside it."""
        return utilization(
            self.tokens_per_s(work),
            work.architecture,
            sequence_length=work.config.seq_length,
            num_parameters=self.num_parameters,
            ceiling=self.ceiling,
        )

    def problems(self, work: Workload) -> list[str]:
        """Why the figures of this side cannot be what they are called."""
        found = list(self.utilization(work).invalid)
        guess = math.log(work.architecture.vocab_size)
        if not abs(self.mean_loss_nats - guess) <= _LOSS_BAND * guess:
            found.append(
                f"a mean loss of {self.mean_loss_nats:.4g} on random ids, where a guess has "
                f"{guess:.4g} nats"
            )
        if not self.weights_moved:
            found.append("the weights are those of before the steps")
        if self.gradients is not None and self.gradients["verdict"] != "PASS":
            found.append(f"preflight.gradients: {self.gradients['found']}")
        return found


@dataclass(frozen=True)
class Timed:
    """The clock's part of a side."""

    warmup_s: float
    step_s: tuple[float, ...]
    losses_nats: tuple[float, ...]


def time_steps(
    step: Callable[[], float], work: Workload, device: torch.device, *, name: str, progress: Report
) -> Timed:
    """Take the steps of a workload; `step` takes one and returns its loss in nats.

    A CUDA device is waited for after every step, so that no work of one is counted in another.
    """
    total = work.num_warmup_steps + work.num_steps
    moments_s, losses_nats = [time.perf_counter()], list[float]()
    for number in range(total):
        progress(Progress(f"timing {name}", number, total, "steps"))
        losses_nats.append(step())
        wait_for(device)
        moments_s.append(time.perf_counter())
    progress(Progress(f"timing {name}", total, total, "steps"))
    first = moments_s[work.num_warmup_steps]
    steady = moments_s[work.num_warmup_steps :]
    return Timed(
        first - moments_s[0],
        tuple(after - before for before, after in pairwise(steady)),
        tuple(losses_nats),
    )


def measured_side(
    timed: Timed,
    model: nn.Module,
    moved: Callable[[], bool],
    device: torch.device,
    dtype: torch.dtype,
    *,
    settings: dict[str, Any],
    data_wait_s: tuple[float, ...] | None = None,
) -> Side:
    """What was timed as a side, with the peak memory so far and then the ceiling beside it."""
    peak_bytes, source = peak_memory_bytes(device)
    return Side(
        settings=settings,
        num_parameters=num_parameters(model),
        warmup_s=timed.warmup_s,
        step_s=timed.step_s,
        data_wait_s=data_wait_s,
        mean_loss_nats=statistics.fmean(timed.losses_nats),
        weights_moved=moved(),
        peak_memory_bytes=peak_bytes,
        peak_memory_source=source,
        ceiling=measure_ceiling(device, dtype),
    )


def settings(device: torch.device, dtype: torch.dtype, *, compiled: bool) -> dict[str, Any]:
    """What a side computes with, for its record."""
    return {
        "precision": "bf16" if dtype is torch.bfloat16 else "fp32",
        "compiled": compiled,
        "threads": torch.get_num_threads(),
        "device": str(device),
        "torch": torch.__version__,
    }


def random_rows(work: Workload, num_rows: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Rows of uniformly random ids, each one longer than a sequence."""
    shape = (num_rows, work.config.seq_length + 1)
    return random.integers(work.architecture.vocab_size, size=shape)


def num_parameters(model: nn.Module) -> int:
    """Parameters of a model, counted from its tensors; a shared one counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def watch_weights(model: nn.Module) -> Callable[[], bool]:
    """A question, `have the weights moved since?`, asked of the last vector of the model."""
    vector = [parameter for parameter in model.parameters() if parameter.ndim == 1][-1]
    before = vector.detach().clone()
    return lambda: not torch.equal(before, vector.detach())


def wait_for(device: torch.device) -> None:
    """Return when the device has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def memory_refusals(name: str) -> Iterator[None]:
    """Turn a device that ran out of memory into a refusal.

    Refuses: bench.out-of-memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as err:
        raise Refusal(
            "bench.out-of-memory",
            name,
            found=str(err).partition(". ")[0],
            expected="a workload that the device holds",
            fix="raise --grad-accum, shorten --seq-length, or choose a smaller --arch",
        ) from err
