"""Sides of a comparison as if they had been measured, for tests of what is made of them."""

import math
from typing import Any

from apr.bench.ceiling import Ceiling
from apr.bench.reference import Workload, workload
from apr.bench.side import Side

H200 = "NVIDIA H200"


def ceiling(
    flops_per_s: float | None = 1e12, *, device_name: str = "a device", precision: str = "bf16"
) -> Ceiling:
    return Ceiling(flops_per_s, "measured by nobody", device_name, precision)


def tiny_work(**options: Any) -> Workload:
    """The tiny preset, two sequences of 32 tokens."""
    chosen = {"arch": "tiny", "batch_size": 2, "seq_length": 32, "device": "cpu"} | options
    return workload(chosen, on_cpu=True, num_steps=2, num_warmup_steps=1)


def side(work: Workload, **changes: Any) -> Side:
    """A side that nothing contradicts: a step of half a second, a loss of a guess."""
    return Side(
        **{
            "settings": {},
            "num_parameters": work.architecture.num_parameters,
            "warmup_s": 3.0,
            "step_s": (0.5, 0.5, 0.6),
            "data_wait_s": None,
            "mean_loss_nats": math.log(work.architecture.vocab_size),
            "weights_moved": True,
            "peak_memory_bytes": 1 << 30,
            "peak_memory_source": "nowhere",
            "ceiling": ceiling(),
            **changes,
        }
    )
