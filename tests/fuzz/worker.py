"""A fuzzing process: it takes stretches of cases through a pipe and answers with tallies."""

import resource
import signal
import tempfile
import time
import warnings
from collections.abc import MutableSequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from tests.fuzz.execution import execute
from tests.fuzz.tally import Tally
from tests.fuzz.target import Target

# A reader that believes a huge number gets a MemoryError, and the machine stays alive.
_ADDRESS_SPACE_BYTES = 8 << 30


@dataclass(frozen=True)
class Stretch:
    """Cases `start` to `stop` of a target, without those that ended a worker before."""

    target: str
    start: int
    stop: int
    skipped: frozenset[int] = frozenset()


def work(
    connection: Connection,
    current: MutableSequence[float],
    seed: int,
    limit_s: float,
    directory: str,
) -> None:
    """Fuzz until the other side hangs up; `current` shows the case and when it was begun."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which has the tallies.
    tempfile.tempdir = directory
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE_BYTES, hard))
    warnings.simplefilter("error")
    targets: dict[str, Target] = {}
    while True:
        try:
            stretch: Stretch = connection.recv()
        except EOFError:
            return
        target = targets.get(stretch.target)
        if target is None:
            target = targets[stretch.target] = warmed(stretch.target)
        connection.send(_fuzz(target, stretch, current, seed, limit_s))


def warmed(name: str) -> Target:
    """A target that has read its seeds: what is made once is not counted as a file's."""
    target = Target(name)
    for data in target.seeds:
        target.outcome(data)
    target.case(0, 0)
    return target


def _fuzz(
    target: Target,
    stretch: Stretch,
    current: MutableSequence[float],
    seed: int,
    limit_s: float,
) -> Tally:
    tally = Tally()
    for number in range(stretch.start, stretch.stop):
        if number in stretch.skipped:
            continue
        current[:] = [number, time.monotonic()]
        data = target.case(seed, number)
        tally.add(number, execute(target, number, data, limit_s=limit_s))
    current[:] = [-1, time.monotonic()]
    return tally
