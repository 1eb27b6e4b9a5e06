"""The most memory this process has had, of the kind its device has."""

import re
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def peak_memory_bytes(device: torch.device) -> tuple[int | None, str]:
    """Bytes at the peak and where they were read; None where they cannot be, and why."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "allocated by torch on the device"
    # Not ru_maxrss, which a process inherits from its parent.
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    if found is None:
        return None, "this system does not say what a process has held at most"
    return int(found[1]) << 10, "resident memory of the process"
