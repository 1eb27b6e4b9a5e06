"""How much memory a device still has for this process, as far as it can be read.

On the CPU several limits hold at once, and the lowest counts: what the machine can still give,
what the control groups of this process allow, and its own address space.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
# What version 1 of control groups writes for "no limit" is the largest multiple of a page.
_NO_LIMIT = 1 << 60
USABLE = 0.95


@dataclass(frozen=True)
class DeviceMemory:
    """The most a process may hold, what it already holds included; None where it is unknown."""

    available_bytes: int | None
    source: str
    """Where the number was read, or why there is none."""
    on_cpu: bool = True
    """Whether it is the memory that the interpreter lives in as well."""

    def shared_by(self, num_processes: int) -> "DeviceMemory":
        """The share of one of several processes, which have a CUDA device each, and one host."""
        if num_processes == 1 or not self.on_cpu or self.available_bytes is None:
            return self
        return DeviceMemory(
            self.available_bytes // num_processes, f"{self.source}, a share of {num_processes}"
        )

    @property
    def usable_bytes(self) -> float | None:
        """What a run may take of it by its estimate."""
        return None if self.available_bytes is None else USABLE * self.available_bytes


def read_device_memory(device: str) -> DeviceMemory:
    """What `cpu`, `cuda`, `cuda:N` or `auto` offers right now; allocates nothing of a model."""
    if device == "cpu":
        return read_host_memory()
    # Not at the top: on the CPU this file answers without torch.
    import torch

    if not torch.cuda.is_available():
        if device == "auto":
            return read_host_memory()
        return DeviceMemory(None, f"no CUDA device is there for {device}", on_cpu=False)
    try:
        free_bytes, _ = torch.cuda.mem_get_info("cuda:0" if device == "auto" else device)
    except (RuntimeError, AssertionError, ValueError) as err:
        reason = f"{device}: {type(err).__name__}: {str(err).partition(chr(10))[0]:.120}"
        return DeviceMemory(None, reason, on_cpu=False)
    return DeviceMemory(free_bytes, "free memory of the CUDA device", on_cpu=False)


def read_host_memory(*, proc: Path = _PROC, cgroups: Path = _CGROUPS) -> DeviceMemory:
    """The lowest of the machine's memory, the control groups' limits and the address space."""
    held_bytes = _kib(proc / "self" / "status", "VmRSS") or 0
    limits = [*_machine(proc, held_bytes), *_groups(proc, cgroups), *_address_space(proc)]
    if not limits:
        return DeviceMemory(None, "this system does not say how much memory it has")
    return min(limits, key=lambda limit: limit.available_bytes or 0)


def _machine(proc: Path, held_bytes: int) -> Iterator[DeviceMemory]:
    available_bytes = _kib(proc / "meminfo", "MemAvailable")
    if available_bytes is not None:
        yield DeviceMemory(available_bytes + held_bytes, "MemAvailable of the machine")
    elif sys.platform != "linux":
        with suppress(ValueError, OSError, AttributeError):
            physical_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            if physical_bytes > 0:
                yield DeviceMemory(physical_bytes, "physical memory of the machine")


def _groups(proc: Path, cgroups: Path) -> Iterator[DeviceMemory]:
    """The room under every limit of every control group that this process is in.

    A limit holds for all processes of a group, so what they use is subtracted; cached files are
    given back when needed, and this process's own share is counted as its own.
    """
    held_bytes = _kib(proc / "self" / "status", "VmRSS") or 0
    for line in _text(proc / "self" / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            roots, names = (cgroups, cgroups / "unified"), ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            roots = (cgroups / "memory",)
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        # Inside a container the path is that of the host, and only the root is mounted.
        for depth in range(len(parts) + 1):
            for root in roots:
                group = root.joinpath(*parts[:depth])
                limit, used = (_integer(group / name) for name in names)
                if limit is None or used is None or limit >= _NO_LIMIT:
                    continue
                cached = _cached_bytes(group / "memory.stat")
                room = limit - max(0, used - cached - held_bytes)
                yield DeviceMemory(max(0, room), f"the limit of control group {path or '/'}")


def _address_space(proc: Path) -> Iterator[DeviceMemory]:
    with suppress(ImportError):
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit == resource.RLIM_INFINITY:
            return
        mapped = _kib(proc / "self" / "status", "VmSize")
        held = _kib(proc / "self" / "status", "VmRSS")
        if mapped is not None and held is not None:
            # Mapped libraries take addresses without taking memory.
            room = limit - (mapped - held)
            yield DeviceMemory(max(0, room), "the limit of the address space (ulimit -v)")


def _cached_bytes(path: Path) -> int:
    text = _text(path)
    for key in ("total_inactive_file", "inactive_file"):
        if found := re.search(rf"^{key} (\d+)$", text, re.MULTILINE):
            return int(found[1])
    return 0


def _kib(path: Path, key: str) -> int | None:
    found = re.search(rf"^{key}:\s+(\d+) kB$", _text(path), re.MULTILINE)
    return int(found[1]) << 10 if found else None


def _integer(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    return ""
