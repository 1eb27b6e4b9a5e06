"""Run directories as finished runs leave them, with the loss of every held-out row, untrained."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tests.unit.report.synthetic_run import run_record, step_lines, write_run

from apr.train.held_out_file import ROWS_FILE, write_rows
from apr.train.row_losses import RowLosses
from apr.units import bits_per_byte

SET_SHA256 = "5e" * 32
NUM_ROWS, ROW_TOKENS, TEXT_BYTES = 400, 64, 102_400


def row_losses(*, above_nats: float = 0.0, noise_nats: float = 0.02, seed: int = 0) -> RowLosses:
    """Rows that are hard and easy alike for every run, and a little apart from run to run."""
    hardness = np.random.default_rng(1).normal(3.0, 0.5, NUM_ROWS)
    noise = np.random.default_rng(100 + seed).normal(0.0, noise_nats, NUM_ROWS)
    num_tokens = np.full(NUM_ROWS, ROW_TOKENS)
    num_tokens[-1] = ROW_TOKENS // 2
    return RowLosses((hardness + noise - noise.mean() + above_nats) * num_tokens, num_tokens)


def finished_run(
    run_dir: Path,
    rows: RowLosses | None = None,
    *,
    config: dict[str, Any] | None = None,
    edit: Callable[[dict[str, Any]], Any] = lambda record: None,
) -> Path:
    """A run that ended well; `edit` changes its record before it is written."""
    rows = row_losses() if rows is None else rows
    run_dir.mkdir(parents=True)
    sha256 = write_rows(run_dir / ROWS_FILE, rows, set_sha256=SET_SHA256, step=1000)
    record = run_record()
    record["config"] |= {"run_dir": str(run_dir)} | (config or {})
    record["val"] |= {
        "best_loss_nats": rows.mean_nats,
        "last_loss_nats": rows.mean_nats,
        "best_standard_error_nats": rows.standard_error_nats,
        "bits_per_byte": bits_per_byte(
            loss_nats=rows.mean_nats, num_tokens=rows.total_tokens, text_bytes=TEXT_BYTES
        ),
        "num_tokens": rows.total_tokens,
        "text_bytes": TEXT_BYTES,
        "set_sha256": SET_SHA256,
        "rows": {"path": ROWS_FILE, "sha256": sha256},
    }
    edit(record)
    write_run(run_dir, record, [with_set(line) for line in step_lines(20, eval_every=5)])
    return run_dir


def with_set(line: dict[str, Any], sha256: str = "ab" * 32) -> dict[str, Any]:
    """A line of steps.jsonl that names the set of a periodic validation."""
    return line | {"set_sha256": sha256} if line["kind"] == "val" else line


def rewrite(run_dir: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Tamper with the record of a run."""
    path = run_dir / "run.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def in_bits(nats: float) -> float:
    """Bits per byte of a loss on the set of these runs."""
    num_tokens = NUM_ROWS * ROW_TOKENS - ROW_TOKENS // 2
    return nats / math.log(2) * num_tokens / TEXT_BYTES
