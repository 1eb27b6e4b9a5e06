"""What reaches the terminal: progress, control characters, and every kind of ending."""

import contextlib
import json
import sys
from pathlib import Path

import click
import pytest

from apr.cli import main, output
from apr.cli.clean_text import clean
from apr.cli.progress_line import ProgressLine
from apr.errors import Interrupted, IoFailed, Refusal
from apr.progress import Progress


@pytest.fixture
def planted_error(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """A verb that raises whatever a test puts into the list."""
    planted: list[BaseException] = []

    @click.command("planted")
    @output.standard_options
    def command() -> output.Result:
        if planted:
            raise planted[0]
        return output.Result(data={"answer": 42}, text="fine", next_commands=("apr demo",))

    module = type(sys)("planted_verb")
    module.command = command  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "planted_verb", module)
    monkeypatch.setitem(main.VERBS, "planted", ("planted_verb:command", "planted"))
    return planted


@pytest.mark.parametrize(
    ("error", "exit_code", "key"),
    [
        (None, 0, "answer"),
        (Refusal("x.y", "here", found=1, expected=2, fix="do"), 5, "refused"),
        (IoFailed("x.y", "here", found=1, expected=2, fix="do"), 7, "refused"),
        (OSError(28, "No space left on device"), 7, "refused"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ValueError("planted"), 1, "bug"),
        (RecursionError("planted"), 1, "bug"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_ending_is_one_object_and_a_code(
    planted_error: list[BaseException],
    capsys: pytest.CaptureFixture[str],
    error: BaseException | None,
    exit_code: int,
    key: str,
) -> None:
    if error is not None:
        planted_error.append(error)
    assert main.run(["planted", "--json"]) == exit_code
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert key in said
    if exit_code:
        assert said["exit_code"] == exit_code
    assert main.run(["planted"]) == exit_code
    captured = capsys.readouterr()
    if exit_code:
        assert captured.out == ""
        assert captured.err
    else:
        assert captured.out == "fine\n\nnext:\n  apr demo\n"


def test_json_after_the_end_of_options_is_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["run", "nowhere.apr", "--", "--json"]) == 3
    assert capsys.readouterr().out == ""


def test_control_characters_become_visible() -> None:
    assert clean("a\x1b[2Jb\r\x9bc\u202ed\te\n") == "a\ufffd[2Jb\ufffd\ufffdc\ufffdd\te\n"


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What two reports of progress, ten seconds apart, print."""

    @click.command()
    @output.standard_options
    def command() -> None:
        report = output.progress()
        report(Progress("counting", 0, 100, "tokens"))
        if isinstance(report, ProgressLine):
            report._started_s -= 10.0
            report._shown_s -= 10.0
        report(Progress("counting", 50, 100, "tokens", "\x1b[31mred"))

    command.main(args=list(arguments), standalone_mode=False)
    return capsys.readouterr().err


def test_progress_has_rate_eta_and_no_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert shown(capsys) == "counting: 50 of 100 tokens  5 tokens/s  ETA 10s  \ufffd[31mred\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_progress_that_cannot_be_shown_stops_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []

    @click.command()
    @output.standard_options
    def command() -> None:
        report = output.progress(plain_interval_s=0.0)
        for number in range(3):
            report(Progress("counting", number, None, "tokens"))
            done.append(number)

    with contextlib.suppress(OSError), open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        command.main([], standalone_mode=False)
        monkeypatch.undo()
    assert done == [0, 1, 2]


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "--quiet") == ""


@pytest.mark.parametrize("ending", ["result", "message", "refusal", "interrupted", "bug", "json"])
def test_what_is_said_after_progress_has_a_line_of_its_own(
    planted_error: list[BaseException],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
) -> None:
    """On a terminal the last line of progress is open; what follows was glued to it."""

    @click.command()
    @output.standard_options
    def working() -> output.Result:
        output.progress()(Progress("counting", 1, None, "tokens"))
        if ending == "message":
            output.notify("a message")
        if planted_error:
            raise planted_error[0]
        return output.Result(data={}, text="fine")

    errors = {
        "refusal": Refusal("x.y", "here", found=1, expected=2, fix="do"),
        "interrupted": Interrupted("stopped"),
        "bug": ValueError("planted"),
    }
    if ending in errors:
        planted_error.append(errors[ending])
    sys.modules["planted_verb"].command = working  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    # Both streams in the order of writing, as a terminal shows them.
    monkeypatch.setattr(sys, "stdout", sys.stderr)
    main.run(["planted", *(["--json"] if ending == "json" else [])])
    shown_first, _, rest = capsys.readouterr().err.partition("\n")
    assert shown_first == "\r\x1b[2Kcounting: 1 tokens"
    assert rest.strip()
    assert "\x1b" not in rest


def test_two_activities_have_a_line_each_and_a_finished_one_is_closed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)

    @click.command()
    @output.standard_options
    def command() -> None:
        one, other = output.progress(), output.progress()
        one(Progress("counting", 0, None, "tokens"))
        other(Progress("reading", 0, 1, "texts"))
        other(Progress("reading", 1, 1, "texts"))
        output.notify("a message")

    command.main(args=[], standalone_mode=False)
    lines = capsys.readouterr().err.split("\n")
    assert [line.rpartition("\x1b[2K")[2] for line in lines] == [
        "counting: 0 tokens",
        "reading: 0 of 1 texts",
        "a message",
        "",
    ]
