"""The one place that knows stdout and stderr: results, refusals, progress.

stdout carries the result (one JSON object with `--json`, in every ending); stderr carries
progress and refusals.
"""

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click

from apr.errors import Interrupted, Refusal
from apr.progress import Progress, Report, silent
from apr.units import format_bytes, format_count, format_duration

_PLAIN_INTERVAL_S = 10.0
_LIVE_INTERVAL_S = 0.1
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Result:
    """What a verb answers: the object for `--json`, the text for a person, the exit code.

    A verb that judged something and said no answers with its findings and with the refusal they
    come to, which then decides the exit code.
    """

    data: dict[str, Any]
    text: str
    exit_code: int = 0
    next_commands: tuple[str, ...] = field(default=())
    refusal: Refusal | None = None


def standard_options(command: Command) -> Command:
    """Add `--json` and `--quiet`, which every verb takes."""
    command = click.option(
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_remember,
        help="No progress on stderr.",
    )(command)
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_remember,
        help="Exactly one JSON object on stdout, in every ending.",
    )(command)


def _remember(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta[f"apr.{param.name}"] = value


def emit(result: Result, *, as_json: bool) -> int:
    """Print a verb's result on stdout, its refusal on stderr; return the exit code."""
    refused = result.refusal
    exit_code = refused.exit_code if refused else result.exit_code
    if as_json:
        said_no = {"refused": refused.as_dict(), "exit_code": exit_code} if refused else {}
        _print_json(result.data | said_no)
    else:
        _print_text(result)
    if refused:
        click.echo(clean(str(refused)), err=True)
    return exit_code


def _print_text(result: Result) -> None:
    click.echo(clean(result.text))
    if result.next_commands:
        click.echo("\nnext:")
        for command in result.next_commands:
            click.echo(f"  {command}")


def emit_refusal(refusal: Refusal, *, as_json: bool) -> int:
    """Print a refusal and return its exit code."""
    click.echo(clean(str(refusal)), err=True)
    if as_json:
        _print_json({"refused": refusal.as_dict(), "exit_code": refusal.exit_code})
    return refusal.exit_code


def emit_usage_error(error: click.UsageError, *, as_json: bool) -> int:
    """Print a command line that cannot be parsed, as a refusal with exit code 2."""
    error.show(file=sys.stderr)
    if as_json:
        refused = {
            "id": "usage",
            "upstream_id": None,
            "where": error.ctx.command_path if error.ctx else "apr",
            "found": error.format_message(),
            "expected": "a valid command line",
            "fix": "read --help",
        }
        _print_json({"refused": refused, "exit_code": error.exit_code})
    return error.exit_code


def emit_interrupted(stop: Interrupted, *, as_json: bool) -> int:
    """Print how an interrupted command is continued."""
    click.echo(str(stop), err=True)
    if stop.resume_command:
        click.echo(f"continue: {stop.resume_command}", err=True)
    if as_json:
        _print_json(
            {
                "interrupted": {"message": str(stop), "resume_command": stop.resume_command},
                "exit_code": stop.exit_code,
            }
        )
    return stop.exit_code


def emit_bug(trace: str, *, as_json: bool, exit_code: int) -> int:
    """Print a crash of ours: the traceback and the plea to report it."""
    click.echo(trace, err=True)
    click.echo("this is a bug in apr; please report it with the lines above", err=True)
    if as_json:
        _print_json({"bug": {"traceback": trace}, "exit_code": exit_code})
    return exit_code


def notify(text: str) -> None:
    """Tell the person something that is neither result nor refusal; silent with `--quiet`."""
    if not click.get_current_context().meta.get("apr.quiet"):
        click.echo(clean(text), err=True)


def clean(text: str) -> str:
    """Text without control characters, so that no file can drive the terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def command_line(*words: object) -> str:
    """A command as a person can paste it."""
    return shlex.join(str(word) for word in words)


def progress() -> Report:
    """Progress as this terminal can show it; silent with `--quiet`."""
    if click.get_current_context().meta.get("apr.quiet"):
        return silent
    live = (
        sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )
    return _ProgressLine(live=live)


class _ProgressLine:
    """One rewritten line on a terminal; one plain line per interval elsewhere."""

    def __init__(self, *, live: bool) -> None:
        self._live = live
        self._activity: str | None = None
        self._started_s = 0.0
        self._first_done = 0
        self._shown_s = 0.0
        self._open = False

    def __call__(self, progress: Progress) -> None:
        now_s = time.monotonic()
        if progress.activity != self._activity:
            self._close()
            self._activity = progress.activity
            self._started_s = self._shown_s = now_s
            self._first_done = progress.done
            if self._live:
                self._write(progress, now_s)
            return
        finished = progress.total is not None and progress.done >= progress.total
        interval_s = _LIVE_INTERVAL_S if self._live else _PLAIN_INTERVAL_S
        worth_a_line = now_s - self._shown_s >= interval_s
        if worth_a_line or (finished and now_s - self._started_s > 2.0):
            self._shown_s = now_s
            self._write(progress, now_s)
        if finished:
            self._close()

    def _write(self, progress: Progress, now_s: float) -> None:
        line = clean(_describe(progress, now_s - self._started_s, self._first_done))
        if self._live:
            sys.stderr.write(f"\r\x1b[2K{line}")
            self._open = True
        else:
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    def _close(self) -> None:
        if self._open:
            sys.stderr.write("\n")
            self._open = False


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


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()
