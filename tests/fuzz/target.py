"""What a fuzz target is: the reader, sound files, and ways to damage them.

A target is a module `NAME_target` of this folder with three functions:

    read(path)                 reads a file as far as apr ever does; may refuse, nothing else
    seeds()                    sound files of every kind, and some that are refused on purpose
    mutator(seeds)             a function from a random generator to the bytes of a damaged file

A case is a number: the same seed, target and number give the same bytes on any machine.
"""

import atexit
import importlib
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from random import Random
from types import ModuleType

from apr.errors import Refusal

ACCEPTED = "accepted"

Mutator = Callable[[Random], bytes]


class Scratch:
    """One path that files are written to, one after another."""

    @cached_property
    def path(self) -> Path:
        directory = tempfile.mkdtemp(prefix="apr-fuzz-", dir=scratch_parent())
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        return Path(directory) / "fuzzed"

    def holding(self, data: bytes) -> Path:
        """The path, with these bytes in a file of its own: an old map of it stays as it was."""
        self.path.unlink(missing_ok=True)
        self.path.write_bytes(data)
        return self.path


def scratch_parent() -> str | None:
    """Where scratch files go: a file system in memory, as a million of them are written."""
    shared_memory = "/dev/shm"
    return shared_memory if tempfile.tempdir is None and os.access(shared_memory, os.W_OK) else None


_SCRATCH = Scratch()


def outcome_of(read: Callable[[Path], object], data: bytes) -> str:
    """`accepted`, or the id of the refusal; anything else that is raised is passed on."""
    path = _SCRATCH.holding(data)
    try:
        read(path)
    except Refusal as err:
        return err.id
    return ACCEPTED


class Target:
    """One target, by name; its seeds are made once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._module: ModuleType = importlib.import_module(
            f"tests.fuzz.{name.replace('-', '_')}_target"
        )

    @cached_property
    def seeds(self) -> list[bytes]:
        return self._module.seeds()

    @cached_property
    def _mutator(self) -> Mutator:
        return self._module.mutator(self.seeds)

    def case(self, seed: int, number: int) -> bytes:
        """The bytes of one case."""
        return self._mutator(Random(f"{seed}/{self.name}/{number}"))

    def outcome(self, data: bytes) -> str:
        return outcome_of(self._module.read, data)
