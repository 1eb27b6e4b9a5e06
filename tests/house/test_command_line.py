"""Verbs and options are frozen and documented; help starts with an example."""

import click
import pytest
from tests.house.command_line import DOCUMENT, FROZEN, commands, document, frozen, help_text

from apr.cli.main import VERBS

AGAIN = "if the change is wanted: python -m tests.house.command_line"
COMMANDS = dict(commands())


def test_every_verb_has_a_command() -> None:
    assert len(COMMANDS) >= len(VERBS) > 5
    assert {path.split()[1] for path in COMMANDS} == {*VERBS}


def test_options_are_the_frozen_ones() -> None:
    assert frozen() == FROZEN.read_text(encoding="utf-8"), AGAIN


def test_a_new_option_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    command = COMMANDS["apr inspect"]
    before = frozen()
    monkeypatch.setattr(command, "params", [*command.params, click.Option(["--planted"])])
    assert "  --planted text\n" in frozen()
    assert frozen() != before


def test_the_documentation_is_what_help_prints() -> None:
    assert document() == DOCUMENT.read_text(encoding="utf-8"), AGAIN


def starts_with_an_example(path: str, help_text: str) -> bool:
    """Usage, one paragraph that says what it is for, then a line to copy."""
    _, _, example = help_text.split("\n\n", 2)
    first_line = example.splitlines()[0].strip()
    return f"{first_line} ".startswith(f"{path} ") and "\\b" not in help_text


@pytest.mark.parametrize("path", COMMANDS)
def test_help_starts_with_an_example(path: str) -> None:
    command = COMMANDS[path]
    assert command.callback is not None
    assert command.callback.__doc__, "a command's docstring is its help"
    shown = help_text(path, command)
    assert starts_with_an_example(path, shown), shown


@pytest.mark.parametrize(
    ("docstring", "is_good"),
    [
        ("Do it.\n\n\b\napr planted FILE\napr planted -n 3\n", True),
        ("Do it.\n\napr planted\n", True),
        ("Do it.\n\n\\b\napr planted FILE\n", False),
        ("Do it.\n\nAt length.\n\napr planted FILE\n", False),
        ("Do it.\n\napr planter FILE\n", False),
        ("Do it.", False),
    ],
)
def test_help_without_an_example_is_seen(docstring: str, is_good: bool) -> None:
    command = click.Command("planted", help=docstring, params=[click.Option(["--json"])])
    assert starts_with_an_example("apr planted", help_text("apr planted", command)) is is_good


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_says_what_it_does(path: str) -> None:
    options = [one for one in COMMANDS[path].params if isinstance(one, click.Option)]
    assert options
    assert [one.name for one in options if not one.help] == []


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_takes_json_and_quiet(path: str) -> None:
    names = {name for parameter in COMMANDS[path].params for name in parameter.opts}
    assert {"--json", "--quiet"} <= names
