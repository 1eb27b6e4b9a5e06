"""One case on a leash: what came of it, how long it took, what it allocated.

A reader may accept or refuse. It may not raise anything else, nor warn, nor work longer than a
time limit, nor allocate beyond what the size of the file explains.
"""

import resource
import signal
import time
import traceback
import tracemalloc
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from tests.fuzz.target import Target

# Text becomes objects, and those are many times as large: {} is two bytes, and 64 in memory.
_PEAK_PER_BYTE = 64
# What is read at once, however small the file.
_TRACED_BYTES = 4 << 20
# Pages, whoever took them: an allocator keeps some for later.
_RESIDENT_BYTES = 32 << 20
# Tracing makes a case three times as slow. The process' pages are looked at after every case.
_TRACED_EVERY = 8


class Hung(BaseException):
    """The time limit; no Exception, so that no reader takes it for one of its own."""


@dataclass(frozen=True)
class Finding:
    """A case that no reader may end in."""

    target: str
    number: int
    signature: str
    """What and where; findings that share it are taken for one."""
    text: str
    data: bytes


@dataclass(frozen=True)
class Execution:
    """One case; `outcome` is None where there is a finding."""

    outcome: str | None
    elapsed_s: float
    traced_bytes: int
    """Python's and numpy's memory at its highest; 0 where it was not traced."""
    finding: Finding | None


def execute(target: Target, number: int, data: bytes, *, limit_s: float) -> Execution:
    """Read the bytes of a case."""
    is_traced = number % _TRACED_EVERY == 0
    outcome, signature, text, traced_bytes = None, "", "", 0
    resident_bytes = _most_resident_bytes()
    if is_traced:
        tracemalloc.start()
    started_s = time.perf_counter()
    try:
        with _limited(limit_s):
            outcome = target.outcome(data)
    except KeyboardInterrupt:
        raise
    except BaseException as err:
        signature, text = f"{type(err).__name__} at {_place(err)}", traceback.format_exc()
    elapsed_s = time.perf_counter() - started_s
    if is_traced:
        traced_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    more_bytes = _most_resident_bytes() - resident_bytes
    allowed_bytes = _PEAK_PER_BYTE * len(data)
    if not signature and (
        traced_bytes > allowed_bytes + _TRACED_BYTES or more_bytes > allowed_bytes + _RESIDENT_BYTES
    ):
        signature = f"memory, outcome {outcome}"
        text = (
            f"{traced_bytes} bytes traced, {more_bytes} more resident than ever, "
            f"for a file of {len(data)}"
        )
    found = Finding(target.name, number, signature, text, data) if signature else None
    return Execution(None if found else outcome, elapsed_s, traced_bytes, found)


def _most_resident_bytes() -> int:
    """The process' memory when it was largest, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@contextmanager
def _limited(limit_s: float) -> Generator[None]:
    """Processor time, so that a busy machine is no finding; what sleeps is for the parent."""
    old = signal.signal(signal.SIGPROF, _hang)
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)


def _hang(_number: int, _frame: FrameType | None) -> None:
    raise Hung("the time limit passed")


def _place(err: BaseException) -> str:
    """The innermost line that is apr's, or else the fuzzer's, or else anybody's."""
    frames = traceback.extract_tb(err.__traceback__)
    # The handler is where the limit was noticed, not where the time went.
    frames = frames[:-1] if isinstance(err, Hung) else frames
    ours = [frame for frame in frames if "/apr/" in frame.filename]
    frame = (ours or [each for each in frames if "/tests/" in each.filename] or frames)[-1]
    name = "/".join(frame.filename.split("/")[-2:])
    return f"{name}: {frame.line}"
