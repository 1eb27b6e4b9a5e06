"""A question answered by a process that shares nothing with this one but the files on disk."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def in_fresh_process(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """The function's answer, or its exception, from an interpreter started for it.

    Raises BrokenProcessPool when that interpreter died without an answer.
    """
    # A spawned process imports everything anew; a forked one would share this one's memory.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(function, *args, **kwargs).result()
