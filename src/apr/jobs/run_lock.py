"""One process per run directory."""

import fcntl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from apr.errors import Refusal
from apr.files import io_refusals


@contextmanager
def hold_run(run_dir: Path) -> Generator[None]:
    """Hold a run directory, created if need be; the lock dies with the process.

    Refuses: run.busy.
    """
    with io_refusals(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        with (run_dir / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as err:
                raise Refusal(
                    "run.busy",
                    run_dir,
                    found="another process is working on this run",
                    expected="a run nobody works on",
                    fix="wait for it, or stop it",
                ) from err
            yield
