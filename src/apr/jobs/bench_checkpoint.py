"""`apr bench checkpoint`: what saving costs the training beside it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from apr.bench.checkpoints import (
    BESIDE,
    NONE,
    PEERS,
    WAITED,
    measure_checkpoints,
    summarize_checkpoints,
)
from apr.bench.peers import require_peers
from apr.files import require_exists
from apr.jobs.bench_train import prepared_workload
from apr.jobs.fresh_process import Runner, in_fresh_process
from apr.progress import Report, silent
from apr.train.compiling import COMPILING, will_compile


def bench_checkpoint(
    options: Mapping[str, Any],
    *,
    against: Sequence[str] = (),
    num_rounds: int = 5,
    num_steps: int = 12,
    directory: Path | None = None,
    runner: Runner = in_fresh_process,
    progress: Report = silent,
    notify: Callable[[str], None] = lambda _text: None,
) -> dict[str, Any]:
    """Take steps with and without a checkpoint beside them, in turn; return what each costs.

    `directory` is on the disk that is measured, by default that of temporary files.

    Refuses: bench.unknown-peer, files.not-found, files.io-failed, and as `bench_train`.
    Writes: a scratch directory, gone afterwards.
    """
    require_peers(against, PEERS)
    if directory is not None:
        require_exists(directory, "a directory")
    work = prepared_workload(options, num_steps=num_steps, num_warmup_steps=4)
    if will_compile(work.config, work.architecture):
        notify(COMPILING)
    measured = runner(
        measure_checkpoints,
        work,
        ways=(NONE, BESIDE, WAITED, *against),
        num_rounds=num_rounds,
        directory=directory,
        progress=progress,
    )
    return summarize_checkpoints(measured)
