"""The line on stderr that says how far a command has come."""

import sys
import time
from contextlib import suppress
from typing import ClassVar

from apr.cli.clean_text import clean
from apr.progress import Progress
from apr.units import format_bytes, format_count, format_duration


class ProgressLine:
    """One rewritten line on a terminal; one plain line per interval elsewhere."""

    # A terminal has one line that can be open, whoever writes the next one.
    _on_terminal: ClassVar["ProgressLine | None"] = None

    def __init__(self, *, live: bool, interval_s: float) -> None:
        self._live = live
        self._interval_s = interval_s
        self._activity: str | None = None
        self._started_s = 0.0
        self._first_done = 0
        self._shown_s = 0.0

    def __call__(self, progress: Progress) -> None:
        now_s = time.monotonic()
        if progress.activity != self._activity:
            self.close_open()
            self._activity = progress.activity
            self._started_s = self._shown_s = now_s
            self._first_done = progress.done
            if self._live:
                self._write(progress, now_s)
            return
        finished = progress.total is not None and progress.done >= progress.total
        worth_a_line = now_s - self._shown_s >= self._interval_s
        if worth_a_line or (finished and now_s - self._started_s > 2.0):
            self._shown_s = now_s
            self._write(progress, now_s)
        if finished:
            self.close_open()

    def _write(self, progress: Progress, now_s: float) -> None:
        line = clean(_describe(progress, now_s - self._started_s, self._first_done))
        with suppress(OSError):  # What nobody can watch is done all the same.
            if self._live:
                if ProgressLine._on_terminal is not self:
                    self.close_open()
                sys.stderr.write(f"\r\x1b[2K{line}")
                ProgressLine._on_terminal = self
            else:
                sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    @staticmethod
    def close_open() -> None:
        """End the line that is open, so that what is written next has one of its own."""
        if ProgressLine._on_terminal is not None:
            ProgressLine._on_terminal = None
            with suppress(OSError):
                sys.stderr.write("\n")
                sys.stderr.flush()


def _describe(progress: Progress, elapsed_s: float, first_done: int) -> str:
    amount = format_bytes if progress.unit == "bytes" else format_count
    unit = "" if progress.unit == "bytes" else f" {progress.unit}"
    parts = [f"{progress.activity}: {amount(progress.done)}"]
    if progress.total is not None:
        parts[0] += f" of {amount(progress.total)}"
    parts[0] += unit
    made = progress.done - first_done
    if elapsed_s > 0.5 and made > 0:
        rate = made / elapsed_s
        parts.append(f"{amount(rate)}{unit}/s")
        if progress.total is not None:
            parts.append(f"ETA {format_duration((progress.total - progress.done) / rate)}")
    if progress.detail:
        parts.append(progress.detail)
    return "  ".join(parts)
