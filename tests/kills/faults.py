"""Something goes wrong at the n-th operation on a run directory, inside the process that does it.

Operations are what the interpreter announces to its audit hooks (a file opened for writing, a
directory made, a rename, a removal), every fsync, and every write to a file that was opened
through `io.open`. A write that is hit has half of its bytes written. The hook cannot be taken out
again, so this is for processes that end afterwards.
"""

import builtins
import errno
import io
import os
import re
import signal
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# Position of the path, and of the descriptor of a directory that it starts from.
_PATHS = {
    "os.mkdir": [(0, 2)],
    "os.rename": [(0, 2), (1, 3)],
    "os.remove": [(0, 1)],
    "os.rmdir": [(0, 1)],
    "os.chmod": [(0, 2)],
    "os.truncate": [(0, None)],
    "os.link": [(0, 2), (1, 3)],
    "os.symlink": [(1, 2)],
}
_NEEDS_SPACE = ("open", "os.mkdir", "write", "fsync")
DiskFault = Literal["EIO", "ENOSPC", "EROFS"]
_RANDOM = re.compile(r"\.[a-z0-9_]{8}\.(tmp|old|shares)")


@dataclass(frozen=True)
class Fault:
    """What happens at operation `at`, counted from 1: among those of its name if one is given.

    Threads write in turn and not always in the same one, so that the number of an operation among
    all others is not the same in every run. A disk that is full, or has become read-only, stays so.
    """

    at: int
    kind: Literal["kill"] | DiskFault = "kill"
    operation: str | None = None

    def is_harmless_to(self, event: str) -> bool:
        """Whether a disk in that state does such a thing all the same."""
        return self.kind == "ENOSPC" and event not in _NEEDS_SPACE


class Planted:
    """Counts the operations below `root`, names them in a file, and lets one of them go wrong."""

    def __init__(self, root: Path, names: Path, fault: Fault | None) -> None:
        self._root = os.path.realpath(root)
        self._fault = fault
        self._names = os.open(names, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._seen = Counter[str]()
        self._has_struck = False
        self._lock = threading.Lock()

    def operation(self, event: str, *paths: object, torn: Any = None) -> None:
        """Called before an operation; `torn` does half of it."""
        below = [name for path in paths if (name := self._below(path)) is not None]
        if not below:
            return
        name = f"{event} {' '.join(below)}"
        fault = self._fault
        with self._lock:
            self._seen[name] += 1
            os.write(self._names, f"{name}\n".encode())
            if fault is None:
                return
            count = self._seen.total() if fault.operation is None else self._seen[name]
            is_here = fault.operation in (None, name) and count == fault.at
            has_struck, self._has_struck = self._has_struck, self._has_struck or is_here
        if is_here and fault.kind == "kill":
            if torn:
                torn()
            os.kill(os.getpid(), signal.SIGKILL)
        stays_so = fault.kind in ("ENOSPC", "EROFS")
        if (is_here or (has_struck and stays_so)) and not fault.is_harmless_to(event):
            number = getattr(errno, fault.kind)
            raise OSError(number, os.strerror(number), below[0])

    def _below(self, path: object) -> str | None:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        absolute = os.path.abspath(os.fsdecode(path))  # pyright: ignore[reportArgumentType]
        if not absolute.startswith(self._root + os.sep):
            return None
        return _RANDOM.sub(r".*.\1", absolute[len(self._root) + 1 :])


def plant(root: Path, *, names: Path, fault: Fault | None) -> None:
    """Watch this process from now on."""
    planted = Planted(root, names, fault)
    real_open, real_fsync = io.open, os.fsync

    def fsync(handle: Any) -> None:
        planted.operation("fsync", handle if isinstance(handle, int) else handle.fileno())
        real_fsync(handle)

    def open_watched(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if "b" not in mode or not set(mode) & set("wax+"):
            return real_open(file, mode, *arguments, **options)
        raw = io.FileIO(file, mode.replace("b", ""), closefd=options.get("closefd", True))
        return _watched(raw, planted)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and not isinstance(path, int):
                planted.operation(event, path)
        elif event in _PATHS:
            planted.operation(event, *(_absolute(arguments, *each) for each in _PATHS[event]))

    os.fsync = fsync
    io.open = builtins.open = open_watched  # pyright: ignore[reportAttributeAccessIssue]
    sys.addaudithook(hook)


def _absolute(arguments: tuple[Any, ...], path_at: int, dir_fd_at: int | None) -> object:
    path, handle = arguments[path_at], -1 if dir_fd_at is None else arguments[dir_fd_at]
    if isinstance(path, int) or handle == -1:
        return path
    return os.path.join(os.readlink(f"/proc/self/fd/{handle}"), os.fsdecode(path))


def _watched(raw: io.FileIO, planted: Planted) -> Any:
    kind = io.BufferedRandom if raw.readable() else io.BufferedWriter

    class Watched(kind):  # pyright: ignore[reportGeneralTypeIssues]
        def write(self, data: Any, /) -> int:
            def torn() -> None:
                self.flush()
                half = memoryview(data).cast("B")
                raw.write(half[: len(half) // 2])

            planted.operation("write", raw.fileno(), torn=torn)
            return super().write(data)

    return Watched(raw)
