"""The processes of an encoding with several workers, as the system knows them."""

import os
import subprocess


def nurseries(parent: int | None = None) -> list[int]:
    """Interpreters that a process, by default this one, has workers forked from."""
    return _children(os.getpid() if parent is None else parent)


def workers(parent: int | None = None) -> list[int]:
    """The workers that work for a process, the youngest last."""
    return [worker for nursery in nurseries(parent) for worker in _children(nursery)]


def is_alive(pid: int) -> bool:
    """Whether a process is there and not merely unburied."""
    words = ["ps", "-o", "stat=", "-p", str(pid)]
    state = subprocess.run(words, capture_output=True, text=True).stdout.strip()
    return state != "" and not state.startswith("Z")


def _children(parent: int) -> list[int]:
    words = ["pgrep", "-P", str(parent), "-f", "encode_worker"]
    return [int(pid) for pid in subprocess.run(words, capture_output=True).stdout.split()]
