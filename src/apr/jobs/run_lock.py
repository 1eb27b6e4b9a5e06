"""One process per run directory."""

from contextlib import AbstractContextManager
from pathlib import Path

from apr.files import hold_lock


def hold_run(run_dir: Path) -> AbstractContextManager[None]:
    """Hold a run directory, created if need be; the lock dies with the process.

    Refuses: run.busy.
    """
    return hold_lock(run_dir / ".lock", id="run.busy", what="run")
