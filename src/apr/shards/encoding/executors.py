"""Who does the tasks: this process, worker processes on this machine, or Ray.

An executor is a function that returns when every task of some work has its part. Parts are the
same whoever makes them, so one executor may finish what another began.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

from apr.errors import UsageRefusal
from apr.shards.encoding.nursery import Nursery
from apr.shards.encoding.pool import run_in_processes
from apr.shards.encoding.ray_executor import run_on_ray
from apr.shards.encoding.task import run_task
from apr.shards.encoding.work import Work

Executor = Callable[[Work], None]


def run_here(work: Work) -> None:
    """Do the tasks one after the other in this process."""
    encoding = work.load_encoding()
    for task in work.tasks:
        run_task(task, encoding, parts=work.workplace.parts, listener=work.listener)
        work.listener(task)


def make_executor(
    kind: Literal["local", "ray"] = "local", *, num_workers: int, nursery: Nursery | None = None
) -> Executor:
    """Local: this process for one worker, else so many worker processes.

    A `nursery` that was started already is where these are forked from.

    Refuses: shards.num-workers.
    """
    if num_workers < 1:
        raise UsageRefusal(
            "shards.num-workers",
            "--num-workers",
            found=num_workers,
            expected="at least 1",
            fix="leave it out for one worker per core",
        )
    if kind == "ray":
        return partial(run_on_ray, num_workers=num_workers)
    if num_workers == 1:
        return run_here
    return partial(run_in_processes, num_workers=num_workers, nursery=nursery)
