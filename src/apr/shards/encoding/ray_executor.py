"""The same tasks on a Ray cluster whose machines share the target's file system.

Ray Core tasks only: Ray holds no state of ours, and what it finished counts by its receipt, so a
run on Ray can be continued without it.
"""

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from apr.errors import FeatureMissing, Refusal
from apr.shards.encoding.plan import Task
from apr.shards.encoding.proof import EncoderDiffers
from apr.shards.encoding.task import Advance, Encoding, run_task
from apr.shards.encoding.work import Work
from apr.shards.encoding.workplace import Workplace


def run_on_ray(work: Work, *, num_workers: int) -> None:
    """Do every task as a Ray task, at most `num_workers` at a time.

    Uses the cluster this process is connected to, or the one that RAY_ADDRESS names, or else
    starts one on this machine. Raises EncoderDiffers as `run_task` does.

    Refuses: shards.ray-missing, and what a task refuses.
    """
    ray = _import_ray()
    if not work.tasks:
        return
    if not ray.is_initialized():
        ray.init(configure_logging=True, logging_level="error", log_to_driver=False)
    remote: Callable[..., Any] = ray.remote(num_cpus=1, max_retries=2)(_run).remote
    directory = str(work.workplace.directory.resolve())
    waiting = list(reversed(work.tasks))
    running: dict[Any, Task] = {}
    try:
        while waiting or running:
            while waiting and len(running) < num_workers:
                task = waiting.pop()
                running[remote(directory, task.as_json())] = task
            finished, _ = ray.wait(list(running), num_returns=1)
            for reference in finished:
                outcome = ray.get(reference)
                if isinstance(outcome, Exception):
                    raise outcome
                work.listener(Advance(**outcome))
                work.listener(running.pop(reference))
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _run(directory: str, task: dict[str, Any]) -> dict[str, int] | Exception:
    """One task in a Ray worker; what it refuses comes back as a value, so Ray does not retry."""
    workplace = Workplace(Path(directory))
    done = Advance(0, 0)

    def add(advance: Advance) -> None:
        nonlocal done
        done += advance

    try:
        encoding = _load(directory, (workplace.directory / "job.json").read_bytes())
        run_task(Task.from_json(task), encoding, parts=workplace.parts, listener=add)
    except (Refusal, EncoderDiffers) as err:
        return err
    return {"text_bytes": done.text_bytes, "num_tokens": done.num_tokens}


@lru_cache(maxsize=1)
def _load(directory: str, _job: bytes) -> Encoding:
    """The encoders, once per worker process and job."""
    return Workplace(Path(directory)).load_encoding()


def _import_ray() -> Any:
    try:
        return import_module("ray")
    except ImportError as err:
        raise FeatureMissing(
            "shards.ray-missing",
            "--executor ray",
            found="the package ray is not installed",
            expected="ray",
            fix="pip install 'apr[ray]'",
        ) from err
