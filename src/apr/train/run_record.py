"""The record of a run: one JSON object, rewritten whole, and one line per step.

Numbers are measured or null with a reason beside them; the outcome says `running` until the
run has ended, so a killed run never looks finished.
"""

import json
import os
import shlex
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

from apr import __version__
from apr.errors import DamagedFile, PathNotFound, Refusal
from apr.files import io_refusals, read_json, sha256_bytes, write_bytes, write_json

SCHEMA = "apr-run-v1"
OUTCOME_EXIT_CODES = {
    "target_met": 0,
    "budget_exhausted": 0,
    "early_stop": 0,
    "aborted": 5,
    "artifact_lost": 7,
    "interrupted": 130,
}
ENDED_WELL = ("target_met", "budget_exhausted", "early_stop")
"""The outcomes after which there is nothing to resume."""
_RECORD_LIMIT_BYTES = 64 << 20
# What is settled before step 1; its hash ties a model file to the run that made it.
_FROZEN = ("schema", "apr_version", "config", "inputs", "architecture", "gates", "init_loss_nats")

NOT_ENDED = "the run has not ended"
_FROZEN_OF_GATE = ("id", "upstream_id", "verdict", "waiver")


def config_in_force(data: Mapping[str, Any]) -> dict[str, Any]:
    """The options a run has by now: as it was started, and as resumes have changed them."""
    fields = dict(data["config"])
    for resume in data["resumes"]:
        changes: dict[str, list[Any]] = resume.get("config_changed", {})
        fields |= {field: now for field, (_, now) in changes.items()}
    return fields


class RunRecord:
    """RUN/run.json while the run is under way."""

    def __init__(self, run_dir: Path, data: dict[str, Any], *, is_kept: bool = True) -> None:
        self.run_dir = run_dir
        self.data = data
        self.is_kept = is_kept
        """Whether it is written at all: of several ranks, the first one's is."""

    @classmethod
    def start(cls, run_dir: Path, *, is_kept: bool = True, **facts: Any) -> "RunRecord":
        """A new record, not yet written; every field of the schema is there from the start."""
        unmeasured = NOT_ENDED
        data: dict[str, Any] = {
            "schema": SCHEMA,
            "apr_version": __version__,
            "outcome": "running",
            "outcome_detail": None,
            "started_at": now(),
            "finished_at": None,
            **facts,
            "num_applied_steps": 0,
            "num_skipped_steps": 0,
            "tokens_seen": 0,
            "epochs_over_data": 0.0,
            "throughput": {
                "tokens_per_s": None,
                "tokens_per_s_reason": unmeasured,
                "tokens_per_s_end_to_end": None,
                "tokens_per_s_end_to_end_reason": unmeasured,
                "mfu": None,
                "mfu_reason": unmeasured,
                "mfu_causal": None,
                "mfu_causal_reason": unmeasured,
                "matmul_ceiling": None,
                "matmul_ceiling_reason": unmeasured,
                "data_wait_fraction": None,
                "data_wait_fraction_reason": unmeasured,
                "checkpoint_fraction": None,
                "checkpoint_fraction_reason": unmeasured,
                "checkpoint_background_fraction": None,
                "checkpoint_background_fraction_reason": unmeasured,
            },
            "samples": [],
            "resumes": [],
            "model": None,
            "model_reason": unmeasured,
        }
        return cls(run_dir, data, is_kept=is_kept)

    @classmethod
    def load(cls, run_dir: Path, *, is_kept: bool = True) -> "RunRecord":
        """The record of an existing run.

        Refuses: run.not-found, run.record-damaged.
        """
        path = run_dir / "run.json"
        if not path.is_file():
            raise PathNotFound(
                "run.not-found",
                path,
                found="no run record",
                expected="a run directory",
                fix="name the directory given to --run-dir",
            )
        data = read_json(
            path, limit_bytes=_RECORD_LIMIT_BYTES, id="run.record-damaged", what="a run record"
        )
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise DamagedFile(
                "run.record-damaged",
                path,
                found="another kind of JSON",
                expected=f"an object with schema {SCHEMA}",
                fix="restore the file",
            )
        return cls(run_dir, data, is_kept=is_kept)

    def frozen_sha256(self) -> str:
        """Hash of everything that was settled before step 1."""
        frozen = {key: self.data[key] for key in _FROZEN}
        # What a gate found may be of the machine, as its free memory is; its verdict is the run's.
        frozen["gates"] = [{key: gate[key] for key in _FROZEN_OF_GATE} for gate in frozen["gates"]]
        text = json.dumps(frozen, sort_keys=True, allow_nan=False, separators=(",", ":"))
        return sha256_bytes(text.encode())

    def write(self) -> None:
        """Replace RUN/run.json atomically."""
        if self.is_kept:
            write_json(self.run_dir / "run.json", self.data)

    def finish(self, outcome: str, *, detail: str | None = None) -> None:
        """Write the ending, once."""
        if outcome in ("aborted", "artifact_lost"):
            _replace_reason(self.data, NOT_ENDED, f"the run ended as {outcome}")
        self.data |= {"outcome": outcome, "outcome_detail": detail, "finished_at": now()}
        self.write()


def _replace_reason(values: dict[str, Any], old: str, new: str) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _replace_reason(cast(dict[str, Any], value), old, new)
        elif key.endswith("_reason") and value == old:
            values[key] = new


class StepLog:
    """RUN/steps.jsonl: one object per update and per validation, in order."""

    def __init__(self, path: Path, target: IO[bytes]) -> None:
        self.path = path
        self._target = target

    @classmethod
    @contextmanager
    def open(
        cls, run_dir: Path, *, keep_through_step: int, is_kept: bool = True
    ) -> Generator["StepLog"]:
        """Append to the log after cutting it back to what the checkpoint knows."""
        path = run_dir / "steps.jsonl" if is_kept else Path(os.devnull)
        if is_kept:
            _cut_back(path, keep_through_step)
        with io_refusals(path), path.open("ab") as target:
            yield cls(path, target)

    def append(self, kind: str, **values: Any) -> None:
        """Add one line."""
        line = json.dumps({"kind": kind, **values}, allow_nan=False)
        self._target.write(line.encode() + b"\n")
        self._target.flush()

    def sync(self) -> None:
        """Bring every line to the disk, before something is written that counts on them.

        Refuses: files.io-failed.
        """
        with io_refusals(self.path):
            os.fsync(self._target.fileno())


def steps_logged_after(run_dir: Path, step: int) -> int:
    """How many updates RUN/steps.jsonl has beyond a step; half a line at its end is none.

    Refuses: files.io-failed.
    """
    path, found = run_dir / "steps.jsonl", 0
    if not path.is_file():
        return 0
    with io_refusals(path), path.open("rb") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
                found += entry["kind"] == "step" and entry["step"] > step
            except (ValueError, KeyError, TypeError):
                break
    return found


def resume_command(run_dir: Path) -> str:
    """What continues a run that was stopped, as it is typed."""
    return f"apr pretrain --resume {shlex.quote(str(run_dir))}"


def now() -> str:
    """This moment, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def require_no_run(run_dir: Path) -> None:
    """Refuse a directory that already holds a run, or what is left of one.

    Refuses: run.exists.
    """
    leftovers = [name for name in ("checkpoints", "steps.jsonl") if (run_dir / name).exists()]
    if leftovers and not (run_dir / "run.json").exists():
        raise Refusal(
            "run.exists",
            run_dir,
            found=f"{' and '.join(leftovers)} of a run, without its record",
            expected="a new directory",
            fix="put its run.json back, or choose another --run-dir",
        )
    if (run_dir / "run.json").exists():
        raise Refusal(
            "run.exists",
            run_dir,
            found="a run is there already",
            expected="a new directory",
            fix=_how_to_go_on(run_dir),
        )


def _how_to_go_on(run_dir: Path) -> str:
    try:
        outcome = RunRecord.load(run_dir).data.get("outcome")
    except Refusal:
        return "choose another --run-dir; the record of the run that is there cannot be read"
    if outcome in ENDED_WELL:
        report = run_dir / "report.html"
        return f"choose another --run-dir: that run has ended ({outcome}); its report is {report}"
    return f"continue it with {resume_command(run_dir)}, or choose another --run-dir"


def _cut_back(path: Path, last_step: int) -> None:
    if not path.exists():
        return
    kept: list[bytes] = []
    with io_refusals(path), path.open("rb") as lines:
        for line in lines:
            # A killed run may leave half a line; nothing after it can be trusted.
            try:
                if json.loads(line)["step"] > last_step:
                    break
            except (ValueError, KeyError, TypeError):
                break
            kept.append(line if line.endswith(b"\n") else line + b"\n")
    write_bytes(path, b"".join(kept))
