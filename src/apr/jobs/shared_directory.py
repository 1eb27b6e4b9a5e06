"""One run directory for all ranks, on whatever machines they are."""

import time
from pathlib import Path

from apr.errors import PathNotFound, Refusal
from apr.files import sha256_file
from apr.train.ranks import Ranks

# A file system over a network may show what is new a little later.
_PATIENCE_S = 5.0
_LOOK_EVERY_S = 0.1


def require_shared(run_dir: Path, ranks: Ranks, *, patience_s: float = _PATIENCE_S) -> None:
    """Refuse a run directory that not every rank sees as the first one has written it.

    Ranks put their shares of a checkpoint together there, and read what the run ends with.

    Refuses: ranks.no-shared-directory, on every rank.
    """
    if not ranks.are_many:
        return
    record = run_dir / "run.json"
    written = ranks.same_as_first(_digest(record) if ranks.is_first else "")
    is_seen, deadline_s = _digest(record) == written, time.monotonic() + patience_s
    while not is_seen and time.monotonic() < deadline_s:
        time.sleep(_LOOK_EVERY_S)
        is_seen = _digest(record) == written
    blind = [str(rank) for rank, (seen,) in enumerate(ranks.gathered([int(is_seen)])) if not seen]
    if blind:
        raise Refusal(
            "ranks.no-shared-directory",
            run_dir,
            found=f"rank {', '.join(blind)} of {ranks.world_size} does not see the run.json that "
            "rank 0 has written there",
            expected="a directory on a file system that all ranks see",
            fix="give a --run-dir that every machine has mounted",
        )


def _digest(path: Path) -> str:
    try:
        return sha256_file(path)
    except PathNotFound:
        return "not there"
