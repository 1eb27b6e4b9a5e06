"""Checkpoints beside the training: a copy is taken, and a thread of its own writes it.

Training waits for the copy alone, where a CUDA device takes it only before its next update, and
for the checkpoint before while that is still being written: there is never more than one copy in
memory, and checkpoints appear in order. What goes wrong in the background is raised in the
training thread. Of several ranks the first writes.
"""

import secrets
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from apr.errors import IoFailed, PathNotFound
from apr.model.transformer import Transformer
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.checkpoint import checkpoint_dir, write_checkpoint
from apr.train.optimizer_state import collect_shares, leave_share, meeting_place
from apr.train.parts import are_dealt_out
from apr.train.ranks import ALONE, Ranks
from apr.train.retention import Retention, clear_leftovers
from apr.train.snapshot import Snapshot, SnapshotMemory, take_snapshot
from apr.train.train_state import TrainState

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle


class CheckpointWriter:
    """Saves the checkpoints of one run; a context manager that waits for the last.

    `before_writing` is called in the background first; `saved_step` has its checkpoint already.
    """

    def __init__(
        self,
        run_dir: Path,
        model: Transformer,
        optimizer: torch.optim.Optimizer,
        *,
        tokenizer: Tokenizer,
        keep: int,
        carried: Mapping[str, Any] | None = None,
        before_writing: Callable[[], None],
        saved_step: int = 0,
        ranks: Ranks = ALONE,
    ) -> None:
        self._run_dir = run_dir
        self._model = model
        self._optimizer = optimizer
        self._tokenizer = tokenizer
        self._retention = Retention(run_dir, keep=keep)
        self._carried = carried
        self._before_writing = before_writing
        self._saved_step = saved_step
        self._ranks = ranks
        self._background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._in_flight: Future[float] | None = None
        self._memory = SnapshotMemory()
        self._held_updates: RemovableHandle | None = None
        self._sitting = ""
        self._are_shares_due = False
        self._is_over = False

    def __enter__(self) -> Self:
        """Make the place for checkpoints, and finish the deleting that a kill cut short.

        Refuses: files.io-failed, ranks.lost.
        """
        if self._ranks.is_first:
            clear_leftovers(self._run_dir)
        self._sitting = self._ranks.same_as_first(secrets.token_hex(4))
        if self._ranks.is_first and self._saved_step:
            directory = checkpoint_dir(self._run_dir, self._saved_step)
            self._in_flight = self._background.submit(self._keep, directory)
        # An update changes what a device may still be copying.
        self._held_updates = self._optimizer.register_step_pre_hook(lambda *_: self._memory.hold())
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._is_over = kind is not None
        self._background.shutdown()
        if self._held_updates is not None:
            self._held_updates.remove()
        self._memory.release()

    def save(self, state: TrainState, *, provenance: list[dict[str, Any]]) -> None:
        """Copy this moment and have it written; the state counts what that held training up.

        A step that has its checkpoint keeps it: a second one would say the same.

        Refuses: what went wrong with the checkpoint before, as `write_checkpoint`.
        Writes: RUN/checkpoints/, later.
        """
        self.wait(state)
        if state.step == self._saved_step:
            return
        self._saved_step = state.step
        with _counted(state):
            is_dealt_out = are_dealt_out(self._model.parameters())
            if not self._ranks.is_first and not is_dealt_out:
                return
            self._are_shares_due = is_dealt_out
            snapshot = take_snapshot(
                self._model, self._optimizer, state, ranks=self._ranks, memory=self._memory
            )
            self._in_flight = (
                self._background.submit(self._write, snapshot, provenance)
                if self._ranks.is_first
                else self._background.submit(self._leave, snapshot)
            )

    def poll(self, state: TrainState) -> None:
        """Raise what went wrong with a checkpoint, as soon as that is known.

        Refuses: as `write_checkpoint`.
        """
        if self._in_flight is not None and self._in_flight.done():
            self._finish(state)

    def wait(self, state: TrainState) -> None:
        """Return once every checkpoint that was asked for is on the disk; all ranks ask at once.

        Refuses: ranks.lost, and as `write_checkpoint`.
        """
        if not self._ranks.is_first:
            self._finish(state)
        if self._are_shares_due:
            self._are_shares_due = False
            with _counted(state):
                # The first rank's background looks for files: no broken connection wakes it.
                self._ranks.wait()
        self._finish(state)

    def _finish(self, state: TrainState) -> None:
        if self._in_flight is None:
            return
        in_flight, self._in_flight = self._in_flight, None
        with _counted(state):
            state.checkpoint_write_s += in_flight.result()

    def _write(self, snapshot: Snapshot, provenance: list[dict[str, Any]]) -> float:
        started_s = time.monotonic()
        self._before_writing()
        try:
            written = write_checkpoint(
                self._run_dir,
                snapshot,
                tokenizer=self._tokenizer,
                provenance=provenance,
                carried=self._carried,
                collect=lambda staged: self._collect(snapshot, staged),
            )
            self._keep(written)
        except PathNotFound as err:
            # The place was there when the run began: what vanished meanwhile is a lost write.
            raise IoFailed(
                "files.io-failed",
                err.where,
                found="it vanished while it was written to",
                expected="a directory that stays",
                fix="put the run's directory back, then resume the run",
            ) from err
        return time.monotonic() - started_s

    def _leave(self, snapshot: Snapshot) -> float:
        started_s = time.monotonic()
        snapshot.settle()
        leave_share(self._meeting_place(snapshot), snapshot.share)
        return time.monotonic() - started_s

    def _collect(self, snapshot: Snapshot, staged: Path) -> None:
        collect_shares(
            self._meeting_place(snapshot),
            snapshot.share,
            staged,
            should_give_up=lambda: self._is_over,
        )

    def _meeting_place(self, snapshot: Snapshot) -> Path:
        return meeting_place(checkpoint_dir(self._run_dir, snapshot.state.step), self._sitting)

    def _keep(self, verified: Path) -> float:
        started_s = time.monotonic()
        self._retention.vouch(verified)
        self._retention.apply()
        return time.monotonic() - started_s


@contextmanager
def _counted(state: TrainState) -> Generator[None]:
    started_s = time.monotonic()
    yield
    state.checkpoint_s += time.monotonic() - started_s
