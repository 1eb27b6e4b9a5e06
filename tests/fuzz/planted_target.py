"""A fuzz target (see `target`) with a fault of every kind, to see that each is reported.

`tests.fuzz.run` fuzzes it only by name.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.target import Mutator

from apr.errors import DamagedFile

_KEPT: list[bytes] = []


def read(path: Path) -> None:
    kind = path.read_bytes().decode()
    if kind == "refused":
        raise DamagedFile("planted.refused", path, found="it", expected="no such file", fix="none")
    if kind == "crash":
        raise IndexError("a bounds check that is not there")
    while kind == "hang":
        pass
    if kind == "asleep":
        time.sleep(3600)
    if kind == "memory":
        _KEPT.append(b"x" * (64 << 20))
    if kind == "death":
        os.abort()


def seeds() -> list[bytes]:
    return [b"sound", b"refused"]


def mutator(seeds: Sequence[bytes]) -> Mutator:
    faults = (b"crash", b"hang", b"asleep", b"memory", b"death")
    return lambda random: random.choice(faults if random.random() < 0.1 else seeds)
