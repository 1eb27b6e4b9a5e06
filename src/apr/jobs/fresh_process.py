"""A question answered by a process that shares nothing with this one but the files on disk.

Not one of multiprocessing's own: those run the caller's script again, print a traceback of their
own at Ctrl-C, share stdout, and outlive a parent that was killed.
"""

import multiprocessing
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from apr.errors import Refusal
from apr.progress import Report

R = TypeVar("R")
# What `in_fresh_process` and `in_this_process` are.
Runner = Callable[..., Any]

# -P and the path that is sent: nothing is imported from the current directory by accident.
_PROGRAM = (
    "import sys; from multiprocessing.connection import Connection; "
    "connection = Connection(int(sys.argv[1])); sys.path[:] = connection.recv(); "
    "from apr.cli.fresh_process import serve; serve(connection)"
)
_STDERR = 2


class ProcessDied(Refusal):
    """The process ended without an answer: killed, or out of memory."""


def in_fresh_process(
    function: Callable[..., R],
    *args: Any,
    progress: Report | None = None,
    environment: Mapping[str, str | None] | None = None,
    **kwargs: Any,
) -> R:
    """The function's answer, or its exception, from an interpreter started for it.

    With `progress` the function gets one too, and what it reports arrives here. Of `environment`
    each variable is set, or taken away where it is None, before any library is loaded. The process
    ends with this call, and with this process, however either ends.

    Refuses: proof.process-died, and what the function refuses.
    """
    ours, theirs = multiprocessing.Pipe()
    with ours:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                # What a library prints must not get into a command's result.
                stdout=_STDERR,
                pass_fds=[theirs.fileno()],
                # Ctrl-C reaches all of a terminal's processes; this one decides about that one.
                start_new_session=True,
            )
        try:
            # One that died before it was asked is found out by listening to it.
            with suppress(BrokenPipeError, ConnectionResetError):
                ours.send(sys.path)
                ours.send(dict(environment or {}))
                ours.send((function, args, kwargs, progress is not None))
            while True:
                kind, content = ours.recv()
                if kind == "answer":
                    return content
                if kind == "exception":
                    raise content
                if progress is not None:
                    progress(content)
        except (EOFError, ConnectionResetError) as err:
            raise _died(function, process.wait()) from err
        finally:
            process.kill()
            process.wait()


def in_this_process(
    function: Callable[..., R],
    *args: Any,
    progress: Report | None = None,
    environment: Mapping[str, str | None] | None = None,
    **kwargs: Any,
) -> R:
    """The function's answer without another interpreter: sooner, for a caller with many models.

    No `environment` is set: the libraries here have read theirs already.
    """
    return function(*args, **kwargs, **({} if progress is None else {"progress": progress}))


def _died(function: Callable[..., Any], status: int) -> ProcessDied:
    how = f"status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
    return ProcessDied(
        "proof.process-died",
        f"the process for {function.__name__}",
        found=f"it ended with {how} and without an answer",
        expected="an answer",
        fix="most likely memory ran out: free some, then run the same command again",
    )
