"""The held-out loss of a run that counts as a result, held against everything else it recorded.

Only a run that ended well and recorded a possible loss counts. What contradicts itself is refused:
its record is not the one the run wrote.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from apr.errors import DamagedFile
from apr.report.record import Record
from apr.train.held_out_file import ROWS_FILE, read_rows
from apr.train.plausible import implausible
from apr.train.row_losses import RowLosses
from apr.train.run_record import ENDED_WELL
from apr.units import bits_per_byte

_CLOSE = 1e-6


@dataclass(frozen=True)
class HeldOutLoss:
    """`loss_nats` is None where there is no result, and `reason` says why."""

    loss_nats: float | None
    reason: str | None
    standard_error_nats: float | None = None
    rows: RowLosses | None = None
    rows_reason: str | None = None


def read_held_out_loss(run_dir: Path, record: Record) -> HeldOutLoss:
    """The loss of a run's best model, in agreement with its bits per byte and with its rows.

    Refuses: run.record-damaged, run.rows-damaged, safetensors.*, files.io-failed.
    """
    val, reason = record.child("val"), _why_no_result(record)
    loss_nats = val.number("best_loss_nats") if reason is None else None
    if loss_nats is None:
        return HeldOutLoss(None, reason, rows_reason=reason)
    _require_bits(val, loss_nats)
    rows, rows_reason = _rows(run_dir, val, loss_nats)
    return HeldOutLoss(loss_nats, None, _standard_error(val, rows), rows, rows_reason)


def _why_no_result(record: Record) -> str | None:
    word, val = record.text("outcome"), record.child("val")
    if word == "running" or word is None:
        return "the run has not ended"
    if word not in ENDED_WELL:
        return f"the run did not end well: {word}"
    loss_nats = val.number("best_loss_nats")
    if loss_nats is None:
        return val.reason("best_loss_nats") or "no held-out loss is on record"
    vocab_size = record.child("architecture").number("vocab_size")
    return implausible(loss_nats, vocab_size=vocab_size)


def _require_bits(val: Record, loss_nats: float) -> None:
    """Bits per byte are the loss in another unit, so the two cannot disagree."""
    recorded, num_tokens = val.number("bits_per_byte"), val.number("num_tokens")
    text_bytes = val.number("text_bytes")
    if recorded is None or num_tokens is None or text_bytes is None:
        return
    expected = bits_per_byte(
        loss_nats=loss_nats, num_tokens=int(num_tokens), text_bytes=int(text_bytes)
    )
    if expected is None or not math.isclose(recorded, expected, rel_tol=_CLOSE):
        raise _contradicts(val, "bits_per_byte", recorded, f"{expected}, of {loss_nats} nats")


def _rows(run_dir: Path, val: Record, loss_nats: float) -> tuple[RowLosses | None, str | None]:
    """The loss of every row, or why it is not known."""
    entry, set_sha256 = val.child("rows"), val.text("set_sha256")
    sha256, path = entry.text("sha256"), run_dir / ROWS_FILE
    if sha256 is None or set_sha256 is None:
        return None, f"{run_dir} has no losses by row on record"
    if not path.exists():
        return None, f"{path} is not there"
    rows = read_rows(path, sha256=sha256, set_sha256=set_sha256)
    recorded = (loss_nats, val.number("num_tokens"))
    if not math.isclose(rows.mean_nats, loss_nats, rel_tol=_CLOSE) or (
        recorded[1] != rows.total_tokens
    ):
        raise DamagedFile(
            "run.rows-damaged",
            path,
            found=f"{rows.mean_nats} nats over {rows.total_tokens} tokens",
            expected=f"{recorded[0]} nats over {recorded[1]} tokens, as run.json says",
            fix="restore both files as the run wrote them",
        )
    return rows, None


def _standard_error(val: Record, rows: RowLosses | None) -> float | None:
    recorded = val.number("best_standard_error_nats")
    if recorded is not None and not recorded >= 0:
        raise _contradicts(val, "best_standard_error_nats", recorded, "none below zero")
    if rows is None:
        return recorded
    computed = rows.standard_error_nats
    if recorded is not None and not (
        computed is not None and math.isclose(recorded, computed, rel_tol=_CLOSE, abs_tol=1e-12)
    ):
        raise _contradicts(val, "best_standard_error_nats", recorded, f"{computed}, from the rows")
    return computed


def _contradicts(val: Record, name: str, found: float, expected: str) -> DamagedFile:
    return DamagedFile(
        "run.record-damaged",
        f"{val.path}, val.{name}",
        found=found,
        expected=expected,
        fix="restore run.json as the run wrote it",
    )
