"""stdin, stdout and stderr as every command may rely on them."""

import io
import os
import sys
from contextlib import suppress
from typing import Any


def prepare() -> None:
    """Give a process all three streams, and one that can write any text.

    A file that is opened while a stream is closed takes its number, and what is meant for the
    stream would be written into that file. A stdout that was closed refuses what is written to it,
    as a full disk does: a command whose answer is lost has not answered.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this
    # Python has None for a stream that was closed when it started, whatever the type says.
    streams: Any = sys
    if streams.stdout is None:
        # Its number itself stays open for writing, for libraries and processes that are started.
        reading = os.open(os.devnull, os.O_RDONLY)
        streams.stdout = os.fdopen(reading, "w", encoding="utf-8")
    if streams.stderr is None:
        streams.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def finish() -> None:
    """Write what still waits, or drop it, so that the process ends with the code it chose."""
    try:
        sys.stdout.flush()
    except OSError:
        discard_stdout()


def discard_stdout() -> None:
    """Send what is still to be written nowhere, so that the end of the process does not fail."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
