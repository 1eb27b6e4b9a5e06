"""One self-contained HTML page for a run, drawn from run.json and steps.jsonl and nothing else.

A record that a comparison would refuse is refused here as well, by the same check.

The page loads nothing and runs nothing: its own policy allows one style sheet, by hash. The same
files give the same bytes.
"""

import math
from pathlib import Path

from apr import __version__
from apr.files import sha256_file, write_bytes
from apr.progress import Report, silent
from apr.report import curves, summary, tables
from apr.report.document import document
from apr.report.gates import gates
from apr.report.held_out_loss import read_held_out_loss
from apr.report.history import HeldOutSet, History, Validation, read_history
from apr.report.loss import loss_chart, readings
from apr.report.markup import Html, element, escape, section
from apr.report.numbers import moment_words
from apr.report.outcome import Outcome, read_outcome
from apr.report.record import Record, read_record
from apr.report.samples import samples
from apr.report.sources import sources

_MOST_STEPS = 12


def write_report(run_dir: Path, *, progress: Report = silent) -> Path:
    """Write a run's page beside its record, over the one that is there.

    Refuses: run.not-found, run.record-damaged, run.rows-damaged, run.steps-damaged,
    safetensors.*, files.io-failed.
    Writes: `run_dir`/report.html.
    """
    record = read_record(run_dir)
    read_held_out_loss(run_dir, record)
    history = read_history(
        run_dir / "steps.jsonl", resumed_at=curves.resumed_at(record), progress=progress
    )
    _add_whole_set_readings(record, history)
    page = run_dir / "report.html"
    record_sha256 = sha256_file(record.path)
    write_bytes(
        page, _document(run_dir.resolve().name or "run", record, history, record_sha256).encode()
    )
    return page


def _add_whole_set_readings(record: Record, history: History) -> None:
    """Put what run.json says about the whole held-out set on the curve, where no line does."""
    val = record.child("val")
    num_tokens = val.number("num_tokens")
    held_out = HeldOutSet(None if num_tokens is None else int(num_tokens), val.text("set_sha256"))
    readings = [
        (0, record.number("init_loss_nats"), val.number("init_bits_per_byte")),
        (val.number("best_step"), val.number("best_loss_nats"), val.number("bits_per_byte")),
    ]
    if val.number("best_step") != history.end_step:
        readings.append((history.end_step, val.number("last_loss_nats"), None))
    # Lines that name no set are taken for the whole one when they read as many tokens.
    is_there = any(
        known.num_tokens == held_out.num_tokens and known.sha256 in {None, held_out.sha256}
        for known in history.validation_losses
    )
    # Without a log nothing says at which step the run ended.
    if is_there or not history.is_present:
        return
    for step, loss_nats, bits in readings:
        if step is not None and loss_nats is not None:
            history.add_validation(Validation(int(step), loss_nats, bits, held_out))


def _document(name: str, record: Record, history: History, record_sha256: str) -> Html:
    outcome = read_outcome(record, history)
    return document(
        escape(f"{name}: {outcome.headline.lower()} (apr run)"),
        _header(name, record),
        element("main", *_sections(record, history, outcome)),
        _footer(history, record_sha256),
    )


def _sections(record: Record, history: History, outcome: Outcome) -> list[Html]:
    return [
        summary.what_happened(outcome, notices=_notices(record, history, outcome)),
        summary.key_numbers(record, history),
        *summary.yardsticks(record),
        section(
            "Curves",
            loss_chart(record, history, uniform_loss_nats=_uniform_loss(record)),
            *readings(history),
            curves.learning_rate_chart(record, history),
            curves.gradient_norm_chart(record, history),
            curves.throughput_chart(record, history),
            id="curves",
        ),
        gates(record),
        samples(record),
        tables.configuration(record),
        tables.architecture(record),
        *sources(record),
        tables.inputs(record),
        tables.environment(record),
        tables.resumes(record),
        *tables.remainder(record),
        tables.not_measured_section(record),
    ]


def _uniform_loss(record: Record) -> float | None:
    vocab_size = record.child("architecture").number("vocab_size")
    return math.log(vocab_size) if vocab_size is not None and vocab_size > 1 else None


def _notices(record: Record, history: History, outcome: Outcome) -> list[str]:
    detail = record.text("outcome_detail")
    notices = [f"Recorded cause: {detail}"] if detail else []
    if outcome.doubt:
        notices.append(outcome.doubt)
    if history.why_absent:
        notices.append(f"{history.why_absent}: no curve can be drawn, and no step be counted.")
    if history.is_torn:
        notices.append(
            "The last line of steps.jsonl is torn, as a killed run leaves it; it is not shown."
        )
    if history.skipped_steps:
        shown = ", ".join(f"{step:,}" for step in history.skipped_steps[:_MOST_STEPS])
        more = len(history.skipped_steps) - _MOST_STEPS
        notices.append(
            f"Not applied: step {shown}{f' and {more:,} more' if more > 0 else ''}. The batches "
            "are kept below skipped/; apr selftest --replay computes one again."
        )
    if history.num_unknown_lines:
        notices.append(
            f"{history.num_unknown_lines:,} lines of steps.jsonl are of a kind that this version "
            "of apr does not know; they are not shown."
        )
    return notices


def _header(name: str, record: Record) -> Html:
    version, started = record.text("apr_version"), record.text("started_at")
    finished = record.text("finished_at")
    words = [f"A run of apr {version}" if version else "A run of apr"]
    if started:
        words.append(f"started {moment_words(started)}")
    if finished:
        words.append(f"ended {moment_words(finished)}")
    line = element("p", escape(", ".join(words)), class_="note")
    return element("header", element("h1", escape(name)), line)


def _footer(history: History, record_sha256: str) -> Html:
    steps = "no steps.jsonl" if history.sha256 is None else f"steps.jsonl {history.sha256}"
    return element(
        "footer",
        element("p", escape(f"Drawn by apr {__version__} from these files alone, by sha256:")),
        element("p", element("code", escape(f"run.json {record_sha256}"))),
        element("p", element("code", escape(steps))),
    )
