"""Cards to plan a run for: what their sheets say, and how fast they are assumed to be.

An assumption is a rate that a kind of work is expected to reach, in three columns; what was
measured on a card replaces it (`train.device_rates`). A card that is not listed has no rates at
all: a figure for the wrong card is worse than none.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from apr.errors import UsageRefusal

_GIB = 1 << 30
COLUMNS = ("conservative", "expected", "best")


class Rates(NamedTuple):
    """How fast each kind of work goes; FLOPs of attention are those of the causal half."""

    body_flops_per_s: float
    head_flops_per_s: float
    attention_forward_flops_per_s: float
    attention_backward_flops_per_s: float
    elementwise_bytes_per_s: float
    copy_bytes_per_s: float


@dataclass(frozen=True)
class Device:
    """One kind of card."""

    name: str
    """As `apr plan --device` takes it."""
    reported_names: tuple[str, ...]
    """What torch calls it; matched whole, since a part of a name is another card."""
    sheet_flops_per_s: float
    """Dense bf16 products that add up in fp32, without sparsity."""
    sheet_bytes_per_s: float
    memory_bytes: int
    """All of it, as torch reports it; less than the sheet says."""
    assumed: dict[str, Rates]
    """By column."""
    assumed_source: str
    ceiling_flops_per_s: float | None = None
    """The best matrix product that anybody measured on such a card."""
    ceiling_source: str = "no ceiling of this card was measured"


_H200 = Device(
    "h200",
    ("NVIDIA H200",),
    989e12,
    4.8e12,
    139 * _GIB,
    {
        # K = 896 halves the efficiency of tiles against a square product; attention at head_dim 64
        # as FlashAttention 2 has it, as cuDNN, and as FlashAttention 3.
        "conservative": Rates(550e12, 650e12, 300e12, 250e12, 3.0e12, 4.3e12),
        "expected": Rates(620e12, 700e12, 395e12, 395e12, 3.5e12, 4.3e12),
        "best": Rates(700e12, 750e12, 460e12, 422e12, 3.9e12, 4.3e12),
    },
    "assumed around two ceilings that others measured: 769 to 798 TFLOP/s in a product of 8192^3, "
    "4.3 TB/s in a copy",
    785e12,
    "a bf16 product of 8192^3 that others measured on an H200",
)


def _like_h200(
    name: str,
    *reported_names: str,
    flops_per_s: float,
    bytes_per_s: float,
    memory_gib: float,
) -> Device:
    """A card of which nothing was measured: it is given the H200's shares of its own sheet."""
    compute = flops_per_s / _H200.sheet_flops_per_s
    traffic = bytes_per_s / _H200.sheet_bytes_per_s
    scales = (compute, compute, compute, compute, traffic, traffic)
    return replace(
        _H200,
        name=name,
        reported_names=reported_names,
        sheet_flops_per_s=flops_per_s,
        sheet_bytes_per_s=bytes_per_s,
        memory_bytes=round(memory_gib * _GIB),
        assumed={
            column: Rates(*(rate * scale for rate, scale in zip(rates, scales, strict=True)))
            for column, rates in _H200.assumed.items()
        },
        assumed_source="assumed: the shares of its sheet that an H200 is assumed to reach; nothing "
        "was measured on such a card",
        ceiling_flops_per_s=None,
        ceiling_source="no ceiling of this card was measured",
    )


DEVICES = {
    device.name: device
    for device in (
        _H200,
        _like_h200(
            "h100",
            "NVIDIA H100 80GB HBM3",
            flops_per_s=989e12,
            bytes_per_s=3.35e12,
            memory_gib=79,
        ),
        _like_h200(
            "h100-pcie",
            "NVIDIA H100 PCIe",
            flops_per_s=756e12,
            bytes_per_s=2.0e12,
            memory_gib=79,
        ),
        _like_h200(
            "a100",
            "NVIDIA A100-SXM4-80GB",
            flops_per_s=312e12,
            bytes_per_s=2.039e12,
            memory_gib=79,
        ),
        _like_h200(
            "a100-40gb",
            "NVIDIA A100-SXM4-40GB",
            flops_per_s=312e12,
            bytes_per_s=1.555e12,
            memory_gib=39,
        ),
        _like_h200(
            "l40s",
            "NVIDIA L40S",
            flops_per_s=362e12,
            bytes_per_s=0.864e12,
            memory_gib=44,
        ),
        _like_h200(
            "rtx4090",
            "NVIDIA GeForce RTX 4090",
            flops_per_s=165.2e12,
            bytes_per_s=1.008e12,
            memory_gib=23.5,
        ),
    )
}


def device_named(name: str) -> Device:
    """The card of that name.

    Refuses: device.unknown.
    """
    if name not in DEVICES:
        raise UsageRefusal(
            "device.unknown",
            f"--device {name}",
            found=repr(name),
            expected=f"one of {', '.join(DEVICES)}; or auto, cpu, cuda, cuda:N for this machine",
            fix="choose one of these; no rates are known of any other card",
        )
    return DEVICES[name]


def device_reported_as(reported_name: str) -> Device | None:
    """The card that torch calls by exactly that name, or None: a guess would be another card."""
    return next(
        (device for device in DEVICES.values() if reported_name in device.reported_names), None
    )
