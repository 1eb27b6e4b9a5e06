"""Which checkpoints of a run stay, and what killed processes left between them.

Only a checkpoint that verifies counts, so that damaged ones never push a good one out. What is to
go first loses its name, in one rename; a process that is killed while it deletes leaves nothing
that looks like a checkpoint.
"""

import re
import secrets
import shutil
from itertools import islice
from pathlib import Path

from apr.errors import Refusal
from apr.files import io_refusals, sync_directory
from apr.train.checkpoint import checkpoint_dir, checkpoint_dirs, read_state, require_verified

# As `staging` names what is being written, `_delete` what is being deleted, and where ranks meet.
_LEFTOVER = re.compile(r"\.step-[0-9]{8}\.[a-z0-9_]{8}\.(tmp|old|shares)")
_Signature = list[tuple[str, int, int, int]]


class Retention:
    """Deletes the checkpoints of a run that are no longer needed."""

    def __init__(self, run_dir: Path, *, keep: int) -> None:
        self._run_dir = run_dir
        self._keep = keep
        self._verified: dict[Path, _Signature] = {}

    def vouch(self, directory: Path) -> None:
        """Take a checkpoint for verified until one of its files is touched."""
        self._verified[directory] = _signature(directory)

    def apply(self) -> None:
        """Delete what is older than the latest verified checkpoints, and not the best of one.

        Falling back to an older checkpoint then still finds its best one. A damaged directory
        that is newer stays for a person to look at.

        Refuses: files.io-failed.
        """
        directories = checkpoint_dirs(self._run_dir)
        latest = list(islice((each for each in directories if self._verifies(each)), self._keep))
        if len(latest) < self._keep:
            return
        best_steps = {read_state(each).best_step for each in latest}
        best = {checkpoint_dir(self._run_dir, step) for step in best_steps if step is not None}
        for directory in directories:
            if directory.name < latest[-1].name and directory not in best:
                self._verified.pop(directory, None)
                _delete(directory)

    def _verifies(self, directory: Path) -> bool:
        try:
            if self._verified.get(directory) != _signature(directory):
                require_verified(directory)
                self.vouch(directory)
        except Refusal:
            return False
        return True


def clear_leftovers(run_dir: Path) -> None:
    """Make the place for checkpoints, and delete what was half-written or half-deleted there.

    The caller holds the run, so nobody else is at work on any of it.

    Refuses: files.io-failed.
    """
    checkpoints = run_dir / "checkpoints"
    with io_refusals(checkpoints):
        checkpoints.mkdir(exist_ok=True)
        sync_directory(run_dir)
        for each in list(checkpoints.iterdir()):
            if _LEFTOVER.fullmatch(each.name) and each.is_dir() and not each.is_symlink():
                shutil.rmtree(each)


def _signature(directory: Path) -> _Signature:
    """What changes when a file is written, replaced, added or taken away."""
    with io_refusals(directory):
        facts = [(each.name, each.stat()) for each in sorted(directory.iterdir())]
    return [(name, fact.st_size, fact.st_mtime_ns, fact.st_ino) for name, fact in facts]


def _delete(directory: Path) -> None:
    with io_refusals(directory):
        retired = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}.old")
        directory.replace(retired)
        shutil.rmtree(retired)
