"""The one place that knows stdout and stderr, with `progress_line`: results, refusals, messages.

stdout carries the result (one JSON object with `--json`, in every ending); stderr carries
refusals, messages and progress.
"""

import errno
import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click

from apr.cli.clean_text import clean
from apr.cli.progress_line import ProgressLine
from apr.cli.streams import discard_stdout
from apr.errors import EXIT_DONE, Interrupted, IoFailed, Refusal
from apr.progress import Report, silent

PLAIN_INTERVAL_S = 10.0
_LIVE_INTERVAL_S = 0.1
_SURROGATE = re.compile(r"[\ud800-\udfff]")

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
        exit_code = _print_json(result.data | said_no, exit_code=exit_code)
    else:
        lines = [result.text]
        if result.next_commands:
            lines += ["", "next:", *(f"  {command}" for command in result.next_commands)]
        exit_code = _print(clean("\n".join(lines)), exit_code=exit_code)
    if refused:
        _print_error(str(refused))
    return exit_code


def emit_help(text: str) -> int:
    """Print a page of help on stdout and return the exit code."""
    return _print(text, exit_code=EXIT_DONE)


def emit_refusal(refusal: Refusal, *, as_json: bool) -> int:
    """Print a refusal and return its exit code."""
    _print_error(str(refusal))
    if as_json:
        said = {"refused": refusal.as_dict(), "exit_code": refusal.exit_code}
        _print_json(said, exit_code=refusal.exit_code)
    return refusal.exit_code


def emit_usage_error(error: click.UsageError, *, as_json: bool) -> int:
    """Print a command line that cannot be parsed, as a refusal with exit code 2."""
    ProgressLine.close_open()
    with suppress(OSError):
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
        said = {"refused": refused, "exit_code": error.exit_code}
        _print_json(said, exit_code=error.exit_code)
    return error.exit_code


def emit_interrupted(stop: Interrupted, *, as_json: bool) -> int:
    """Print how an interrupted command is continued."""
    _print_error(str(stop))
    if stop.resume_command:
        _print_error(f"continue: {stop.resume_command}")
    if as_json:
        how = {"message": str(stop), "resume_command": stop.resume_command}
        said = {"interrupted": how, "exit_code": stop.exit_code}
        _print_json(said, exit_code=stop.exit_code)
    return stop.exit_code


def emit_bug(trace: str, *, as_json: bool, exit_code: int) -> int:
    """Print a crash of ours: the traceback and the plea to report it."""
    _print_error(f"{trace}\nthis is a bug in apr; please report it with the lines above")
    if as_json:
        _print_json({"bug": {"traceback": trace}, "exit_code": exit_code}, exit_code=exit_code)
    return exit_code


def notify(text: str) -> None:
    """Tell the person something that is neither result nor refusal; silent with `--quiet`."""
    if not click.get_current_context().meta.get("apr.quiet"):
        _print_error(text)


def command_line(*words: object) -> str:
    """A command as a person can paste it, whatever a file's name does to a terminal."""
    return " ".join(_quoted(str(word)) for word in words)


def _quoted(word: str) -> str:
    if clean(word) == word and "\n" not in word:
        return shlex.quote(word)
    # Bash, zsh and POSIX of 2024 read $'...'; every byte that is not plain is spelled in it.
    spelled = [
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b"'\\" else f"\\x{byte:02x}"
        for byte in os.fsencode(word)
    ]
    return "$'" + "".join(spelled) + "'"


def progress(*, plain_interval_s: float = PLAIN_INTERVAL_S) -> Report:
    """Progress as this terminal can show it; silent with `--quiet`.

    `plain_interval_s` lies between two lines where no line can be rewritten.
    """
    if click.get_current_context().meta.get("apr.quiet"):
        return silent
    live = (
        sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )
    return ProgressLine(live=live, interval_s=_LIVE_INTERVAL_S if live else plain_interval_s)


def _print_json(value: dict[str, Any], *, exit_code: int) -> int:
    text = _SURROGATE.sub(_as_escape, json.dumps(value, ensure_ascii=False, allow_nan=False))
    if (sys.stdout.encoding or "").replace("-", "").lower() != "utf8":
        text = json.dumps(json.loads(text))  # JSON is UTF-8, whatever the terminal reads.
    return _print(text, exit_code=exit_code)


def _as_escape(match: re.Match[str]) -> str:
    """A byte of a name that is no UTF-8, within a JSON string as apr writes it in locations."""
    code = ord(match.group())
    return f"\\\\x{code & 0xFF:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\\\u{code:04x}"


def _print(text: str, *, exit_code: int) -> int:
    """Write to stdout and return the exit code, which says so where a success went unheard."""
    ProgressLine.close_open()
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        discard_stdout()  # The reader has seen enough.
    except OSError as err:
        discard_stdout()
        is_closed = err.errno == errno.EBADF
        mend = "leave stdout open" if is_closed else "free space"
        lost = IoFailed(
            "files.io-failed",
            "standard output",
            found="it is closed" if is_closed else err.strerror or str(err),
            expected="somewhere to write the result to",
            fix=f"what was asked for is done, but its report is lost; {mend} before the next",
        )
        _print_error(str(lost))
        return exit_code or lost.exit_code
    return exit_code


def _print_error(text: str) -> None:
    ProgressLine.close_open()
    with suppress(OSError):
        click.echo(clean(text), err=True)
