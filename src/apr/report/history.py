"""The steps of a run, read line by line in bounded memory."""

import hashlib
import json
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, cast

from apr.errors import DamagedFile
from apr.files import io_refusals
from apr.progress import Progress, Report, silent
from apr.report.series import Series

_LINE_LIMIT_BYTES = 64 << 10
_LARGEST_COUNT = 10**15
_MOST_LISTED = 256
_MOST_SETS = 6
_LINES_PER_REPORT = 20_000

# Lenient about NaN and infinity, which a broken run may have computed; `_number` drops them.
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class HeldOutSet:
    """What was read; readings of two sets are two different measurements."""

    num_tokens: int | None
    sha256: str | None


@dataclass(frozen=True)
class Validation:
    """One reading of held-out text."""

    step: int
    loss_nats: float | None
    bits_per_byte: float | None
    held_out: HeldOutSet


@dataclass
class History:
    """Everything the page draws from steps.jsonl."""

    is_present: bool = False
    is_torn: bool = False
    sha256: str | None = None
    num_steps: int = 0
    num_tokens: float = 0
    last_step: int = 0
    last_elapsed_s: float | None = None
    num_unknown_lines: int = 0
    skipped_steps: list[int] = field(default_factory=list[int])
    loss_nats: Series = field(default_factory=Series)
    grad_norm: Series = field(default_factory=Series)
    lr_applied: Series = field(default_factory=Series)
    tokens_per_s: Series = field(default_factory=Series)
    validation_losses: dict[HeldOutSet, Series] = field(default_factory=dict[HeldOutSet, Series])
    validations: list[Validation] = field(default_factory=list[Validation])
    """Readings in file order, evenly thinned to at most 256; see `validation_stride`."""
    validation_stride: int = 1
    num_validations: int = 0

    @property
    def why_absent(self) -> str | None:
        """Why there is no curve at all; None where there is a log."""
        return None if self.is_present else "steps.jsonl is not there"

    @property
    def end_step(self) -> int:
        """The last step on record, whether it was applied or skipped."""
        return max([self.last_step, *self.skipped_steps[-1:]])

    def add_validation(self, validation: Validation) -> None:
        """Take in one reading of held-out text."""
        held_out, losses = validation.held_out, self.validation_losses
        if held_out not in losses and len(losses) >= _MOST_SETS:
            held_out = HeldOutSet(None, None)
        losses.setdefault(held_out, Series()).add(validation.step, validation.loss_nats)
        if self.num_validations % self.validation_stride == 0:
            self.validations.append(validation)
        self.num_validations += 1
        if len(self.validations) > _MOST_LISTED:
            self.validations = self.validations[::2]
            self.validation_stride *= 2


def read_history(
    path: Path, *, resumed_at: Collection[int] = (), progress: Report = silent
) -> History:
    """The curves of a run; empty when the run never reached a step.

    The last line may be torn: a killed run stops while writing it. Every other line must be
    whole, and steps must ascend. `resumed_at` are steps whose duration spans two processes.

    Refuses: files.io-failed, run.steps-damaged.
    """
    history = History()
    with io_refusals(path):
        if not path.exists():
            return history
        if not path.is_file():
            raise _damaged(path, None, "not a regular file")
        history.is_present = True
        reader = _Reader(history, frozenset(resumed_at))
        digest = hashlib.sha256()
        total_bytes, done_bytes = path.stat().st_size, 0
        with path.open("rb") as source:
            for number in count(1):
                # A run under way may finish the torn line meanwhile; its rest is no line.
                line = b"" if history.is_torn else source.readline(_LINE_LIMIT_BYTES + 1)
                if not line:
                    break
                digest.update(line)
                done_bytes += len(line)
                try:
                    reader.read(line)
                except ValueError as err:
                    raise _damaged(path, number, str(err)) from err
                if number % _LINES_PER_REPORT == 0:
                    progress(Progress("reading steps", done_bytes, total_bytes, "bytes"))
        history.sha256 = digest.hexdigest()
    return history


class _Reader:
    """Turns lines into curves; remembers the step before, because a rate needs two."""

    def __init__(self, history: History, resumed_at: frozenset[int]) -> None:
        self._history = history
        self._resumed_at = resumed_at

    def read(self, line: bytes) -> None:
        if len(line) > _LINE_LIMIT_BYTES:
            raise ValueError(f"a line of over {_LINE_LIMIT_BYTES} bytes")
        try:
            entry = _parse(line)
        except ValueError:
            # Only the last line of a file can lack its end.
            if line.endswith(b"\n"):
                raise
            self._history.is_torn = True
            return
        self._add(entry)

    def _add(self, entry: dict[str, Any]) -> None:
        kind = entry.get("kind")
        if kind == "step":
            self._add_step(entry)
        elif kind == "val":
            self._history.add_validation(
                Validation(
                    _step(entry),
                    _number(entry, "loss_nats"),
                    _number(entry, "bits_per_byte"),
                    _held_out(entry),
                )
            )
        elif kind == "skip":
            self._history.skipped_steps.append(_step(entry))
        else:
            self._history.num_unknown_lines += 1

    def _add_step(self, entry: dict[str, Any]) -> None:
        history = self._history
        step = _step(entry)
        if history.num_steps and step <= history.last_step:
            raise ValueError(f"step {step} after step {history.last_step}")
        elapsed_s, tokens = _number(entry, "elapsed_s"), _number(entry, "tokens")
        if tokens is not None and not 0 <= tokens <= _LARGEST_COUNT:
            tokens = None
        history.loss_nats.add(step, _number(entry, "loss_nats"))
        history.grad_norm.add(step, _number(entry, "grad_norm"))
        history.lr_applied.add(step, _number(entry, "lr_applied"))
        follows = history.num_steps and step == history.last_step + 1
        if follows and not {step, step - 1} & self._resumed_at:
            rate = _rate(tokens, history.last_elapsed_s, elapsed_s)
            history.tokens_per_s.add(step, rate)
        history.num_steps += 1
        history.num_tokens += tokens or 0
        history.last_step = step
        history.last_elapsed_s = elapsed_s


def _rate(tokens: float | None, before_s: float | None, after_s: float | None) -> float | None:
    if tokens is None or before_s is None or after_s is None or after_s <= before_s:
        return None
    return tokens / (after_s - before_s)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        entry = _DECODER.decode(line.decode("utf-8"))
    except RecursionError as err:
        raise ValueError("nested too deeply") from err
    if not isinstance(entry, dict):
        raise ValueError(f"a JSON {type(entry).__name__}, not an object")
    return cast(dict[str, Any], entry)


def _step(entry: dict[str, Any]) -> int:
    step = entry.get("step")
    if type(step) is not int or not 0 <= step <= _LARGEST_COUNT:
        raise ValueError(f"step {str(step)[:40]!r}, not a count")
    return step


def _number(entry: dict[str, Any], name: str) -> float | None:
    """A finite number; None when absent, null or not finite, ValueError for another type."""
    value = entry.get(name)
    if type(value) is float:
        return value if math.isfinite(value) else None
    if value is None:
        return None
    if type(value) is not int:
        raise ValueError(f"{name} is a {type(value).__name__}, not a number")
    try:
        return float(value)
    except OverflowError:
        return None


def _held_out(entry: dict[str, Any]) -> HeldOutSet:
    num_tokens, sha256 = _number(entry, "num_tokens"), entry.get("set_sha256")
    if sha256 is not None and not isinstance(sha256, str):
        raise ValueError(f"set_sha256 is a {type(sha256).__name__}, not a string")
    return HeldOutSet(None if num_tokens is None else int(num_tokens), sha256)


def _damaged(path: Path, number: int | None, found: str) -> DamagedFile:
    return DamagedFile(
        "run.steps-damaged",
        path if number is None else f"{path}, line {number}",
        found=found,
        expected="one JSON object per line, steps ascending",
        fix="restore steps.jsonl as the run wrote it",
    )
