"""`apr validate`: every byte of an .apr file, judged."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from apr.cli import output
from apr.cli.values import MODEL_PATH
from apr.errors import Refusal
from apr.units import format_bytes

if TYPE_CHECKING:
    from apr.container.inspecting.validation import Validation


@click.command("validate", short_help="Check every byte of an .apr file.")
@click.argument("path", type=MODEL_PATH)
@output.standard_options
def command(path: Path) -> output.Result:
    """Read every byte of the .apr file at PATH and say whether it is sound.

    \b
    apr validate runs/demo/model.apr

    A check that could compare nothing is UNKNOWN, and blocks like FAIL (exit code 5). A file that
    cannot be read as .apr at all is refused (exit code 4).
    """  # noqa: D301  click reads the escaped character
    from apr.container.inspecting.validation import validate

    validation = validate(path, progress=output.progress())
    return output.Result(
        data=validation.as_dict(),
        text=_text(validation),
        exit_code=0 if validation.verdict == "PASS" else Refusal.exit_code,
    )


def _text(validation: "Validation") -> str:
    lines = [f"{validation.verdict}  {validation.path}, {format_bytes(validation.size_bytes)}", ""]
    width = max(len(check.id) for check in validation.checks)
    for check in validation.checks:
        lines.append(f"{check.verdict:<7}  {check.id:<{width}}  {check.found}")
        if check.verdict != "PASS":
            lines.append(f"{'':<{width + 11}}expected: {check.expected}")
    lines += [f"{'-':<7}  {skip.id:<{width}}  {skip.reason}" for skip in validation.not_applicable]
    lines += [f"note: {note}" for note in validation.notes]
    return "\n".join(lines)
