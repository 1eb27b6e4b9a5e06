"""The gates on what a run takes: memory of its device, room on its disk.

Both are judged before a model is allocated, from its shape alone.
"""

from dataclasses import replace
from pathlib import Path

from apr.architecture import Architecture
from apr.train.attention_preference import preferred_way
from apr.train.config import TrainConfig
from apr.train.device_memory import (
    USABLE,
    DeviceMemory,
    read_device_memory,
    read_host_memory,
)
from apr.train.disk import DiskEstimate, estimate_disk, free_bytes
from apr.train.gates import Finding, Gate, judge
from apr.train.host_memory import beside_the_devices
from apr.train.inputs import Inputs
from apr.train.memory import MemoryEstimate, estimate_memory, largest_fitting
from apr.train.ranks import ALONE, Ranks
from apr.train.workload import Workload
from apr.units import format_bytes

# Below this a sequence holds too little context for a model to be worth training.
_SHORTEST_ADVISED = 32


def check_resources(
    config: TrainConfig, inputs: Inputs, *, device: str, ranks: Ranks = ALONE
) -> list[Gate]:
    """Whether the device, `auto` resolved, holds the run, and the disk what it writes."""
    return [
        judge("preflight.disk-space", lambda: check_run_disk(config, inputs)),
        judge("preflight.memory", lambda: check_run_memory(config, inputs, device, ranks)),
    ]


def workload(
    config: TrainConfig,
    architecture: Architecture,
    device: DeviceMemory,
    *,
    num_documents: int = 0,
    ranks: Ranks = ALONE,
) -> Workload:
    """What decides a rank's memory, out of its run's configuration, its shape and its data."""
    return Workload(
        architecture,
        batch_size=config.batch_size // ranks.world_size,
        num_shards=ranks.world_size if config.data_parallel == "fsdp" else 1,
        sequence_length=config.seq_length,
        grad_accum=config.grad_accum or 1,
        activation_checkpointing=bool(config.activation_checkpointing),
        optimizer=config.optimizer,
        precision=config.precision,
        compiled=config.compile,
        document_mask=config.document_mask,
        attention=preferred_way(config, on_cpu=device.on_cpu, in_fp32=config.precision == "fp32"),
        num_documents=num_documents,
        on_cpu=device.on_cpu,
    )


def check_run_memory(
    config: TrainConfig, inputs: Inputs, device_name: str, ranks: Ranks = ALONE
) -> Finding:
    """The device of a rank has the memory that it takes, and so has the host of a CUDA device."""
    device = read_device_memory(device_name).shared_by(ranks.local_world_size)
    work = workload(
        config, inputs.architecture, device, num_documents=inputs.num_documents, ranks=ranks
    )
    host = None if device.on_cpu else read_host_memory()
    return check_memory(work, device, host=host, num_local_ranks=ranks.local_world_size)


def check_memory(
    work: Workload,
    device: DeviceMemory,
    *,
    host: DeviceMemory | None = None,
    num_local_ranks: int = 1,
) -> Finding:
    """The peak of a run stays below what the device has for it, and its rest below the host's.

    `host` is that of a device with a memory of its own, where that host is known.
    """
    found = _check_device(work, device)
    if host is None or found.verdict != "PASS":
        return found
    beside = _check_host(work, host, num_local_ranks)
    if beside.verdict != "PASS":
        return beside
    return replace(found, found=f"{found.found}; beside it {beside.found}")


def _check_device(work: Workload, device: DeviceMemory) -> Finding:
    estimate = estimate_memory(work)
    usable_bytes = device.usable_bytes
    if device.available_bytes is None or usable_bytes is None:
        return Finding(
            "UNKNOWN",
            f"about {format_bytes(estimate.peak_bytes)} at the peak; {device.source}",
            "a device whose memory can be read",
            "name another --device, or --waive preflight.memory=REASON once you know that it fits",
        )
    fits = estimate.peak_bytes < usable_bytes
    return Finding(
        "PASS" if fits else "FAIL",
        f"about {format_bytes(estimate.peak_bytes)} at the peak, {estimate.moment}; most of it "
        f"{_largest_parts(estimate)}",
        f"below {USABLE:.0%} of {format_bytes(device.available_bytes)}, {device.source}",
        "" if fits else _how_to_fit(work, usable_bytes),
    )


def _check_host(work: Workload, host: DeviceMemory, num_local_ranks: int) -> Finding:
    parts = beside_the_devices(work, num_local_ranks)
    needed_bytes, usable_bytes = sum(parts.values()), host.usable_bytes
    needed = f"about {format_bytes(needed_bytes)} of the host's memory"
    if host.available_bytes is None or usable_bytes is None:
        return Finding(
            "UNKNOWN",
            f"{needed}; {host.source}",
            "a host whose memory can be read",
            "--waive preflight.memory=REASON once you know that it fits",
        )
    fits = needed_bytes < usable_bytes
    return Finding(
        "PASS" if fits else "FAIL",
        f"{needed}, of which {format_bytes(parts['checkpoint snapshot'])} for the copy that a "
        "checkpoint is written from",
        f"below {USABLE:.0%} of {format_bytes(host.available_bytes)}, {host.source}",
        "" if fits else "free memory of the host, choose one with more, or a smaller --arch",
    )


def check_run_disk(config: TrainConfig, inputs: Inputs) -> Finding:
    """The file system under the run directory holds all that will lie there at once."""
    estimate = estimate_disk(
        config, inputs.architecture, tokenizer_bytes=len(inputs.tokenizer.json_bytes)
    )
    return check_disk(estimate, free_bytes(config.run_dir), config.run_dir)


def check_disk(estimate: DiskEstimate, free: tuple[int, Path] | None, run_dir: Path) -> Finding:
    """What a run writes is less than what is free."""
    needed = (
        f"{format_bytes(estimate.peak_bytes)}: {estimate.num_held} checkpoints of "
        f"{format_bytes(estimate.checkpoint_bytes)}, one more while it is written, model.apr, logs"
    )
    if free is None:
        return Finding(
            "UNKNOWN",
            f"{needed}; the free space at {run_dir} cannot be read",
            "a file system that says what is free",
            "choose another --run-dir, or --waive preflight.disk-space=REASON",
        )
    room_bytes, place = free
    return Finding(
        "PASS" if estimate.peak_bytes < room_bytes else "FAIL",
        needed,
        f"less than the {format_bytes(room_bytes)} free at {place} (a quota is not seen)",
        "free space, choose a --run-dir on another disk, or --keep fewer checkpoints",
    )


def _largest_parts(estimate: MemoryEstimate) -> str:
    largest = sorted(estimate.parts.items(), key=lambda part: -part[1])[:2]
    return " and ".join(f"{name} ({format_bytes(size_bytes)})" for name, size_bytes in largest)


def _how_to_fit(work: Workload, usable_bytes: float) -> str:
    for recomputed in (work.activation_checkpointing, True):
        tried = replace(work, activation_checkpointing=recomputed)
        grad_accum = largest_fitting(tried, usable_bytes)
        if grad_accum is not None:
            flag = "--activation-checkpointing " if recomputed else ""
            return (
                f"{flag}--grad-accum {grad_accum}, micro-batches of "
                f"{work.batch_size // grad_accum} sequences, is the same update and fits"
            )
    without_scores = replace(work, attention="flash")
    if work.attention in ("plain", "pieces") and largest_fitting(without_scores, usable_bytes):
        return "--attention flash, which keeps no scores, would fit where the device has it"
    shorter = _longest_fitting(work, usable_bytes)
    if shorter is not None:
        return (
            f"no micro-batch of whole sequences fits: --seq-length {shorter} with --grad-accum "
            f"{work.batch_size} --activation-checkpointing would, or choose a smaller --arch, or a "
            "device with more memory"
        )
    return (
        "no --seq-length and no --grad-accum makes it fit: weights, gradients and moments alone "
        "are too much; choose a smaller --arch, or a device with more memory"
    )


def _longest_fitting(work: Workload, usable_bytes: float) -> int | None:
    """A sequence half as long, or half of that, of which single ones would fit; None without."""
    length = work.sequence_length // 2
    while length >= _SHORTEST_ADVISED:
        tried = replace(
            work,
            sequence_length=length,
            grad_accum=work.batch_size,
            activation_checkpointing=True,
        )
        if estimate_memory(tried).peak_bytes < usable_bytes:
            return length
        length //= 2
    return None
