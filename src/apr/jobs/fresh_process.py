"""A question answered by a process that shares nothing with this one but the files on disk."""

import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from apr.progress import Progress, Report

R = TypeVar("R")


class ProcessDied(Exception):
    """The process ended without an answer: killed, or out of memory."""


def in_fresh_process(
    function: Callable[..., R], *args: Any, progress: Report | None = None, **kwargs: Any
) -> R:
    """The function's answer, or its exception, from an interpreter started for it.

    With `progress` the function gets one too, and what it reports arrives here.

    Raises ProcessDied.
    """
    # A spawned process imports everything anew; a forked one would share this one's memory.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    question = (theirs, progress is not None, function, args, kwargs)
    process = context.Process(target=_answer, args=question)
    process.start()
    theirs.close()
    try:
        while True:
            kind, content = ours.recv()
            if kind == "answer":
                return content
            if kind == "exception":
                raise content
            if progress is not None:
                progress(content)
    except EOFError as err:
        raise ProcessDied(f"it ended with status {process.exitcode}") from err
    finally:
        ours.close()
        process.kill()
        process.join()


def _answer(
    connection: Connection,
    reports: bool,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    def report(progress: Progress) -> None:
        connection.send(("progress", progress))

    # Nobody may be left to hear it.
    with suppress(BrokenPipeError):
        try:
            answer = function(*args, **kwargs, **({"progress": report} if reports else {}))
        except Exception as err:
            connection.send(("exception", err))
        else:
            connection.send(("answer", answer))
