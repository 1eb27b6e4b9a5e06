"""A run as a comparison takes it: its record, its curves, and its held-out loss."""

from dataclasses import dataclass
from pathlib import Path

from apr.files import sha256_file
from apr.progress import Report, silent
from apr.report.curves import resumed_at
from apr.report.held_out_loss import read_held_out_loss
from apr.report.history import History, read_history
from apr.report.outcome import Outcome, read_outcome
from apr.report.record import Record, read_record
from apr.train.row_losses import RowLosses


@dataclass(frozen=True)
class ComparedRun:
    """What one run brings; `loss_nats` is None where it cannot be ranked, and `reason` says why."""

    path: Path
    record: Record
    record_sha256: str
    history: History
    outcome: Outcome
    loss_nats: float | None
    reason: str | None
    standard_error_nats: float | None
    rows: RowLosses | None
    rows_reason: str | None

    @property
    def name(self) -> str:
        """The run as it was named on the command line."""
        return str(self.path)

    @property
    def set_sha256(self) -> str | None:
        """Which held-out set its numbers are of."""
        return self.record.child("val").text("set_sha256")


def read_compared_run(run_dir: Path, *, progress: Report = silent) -> ComparedRun:
    """A run's record, its curves and its row losses, held against each other.

    Refuses: run.not-found, run.record-damaged, run.rows-damaged, run.steps-damaged,
    safetensors.*, files.io-failed.
    """
    record = read_record(run_dir)
    history = read_history(
        run_dir / "steps.jsonl", resumed_at=resumed_at(record), progress=progress
    )
    held_out = read_held_out_loss(run_dir, record)
    return ComparedRun(
        path=run_dir,
        record=record,
        record_sha256=sha256_file(record.path),
        history=history,
        outcome=read_outcome(record, history),
        loss_nats=held_out.loss_nats,
        reason=held_out.reason,
        standard_error_nats=held_out.standard_error_nats,
        rows=held_out.rows,
        rows_reason=held_out.rows_reason,
    )
