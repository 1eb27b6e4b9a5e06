"""`apr lint`: what an .apr file lacks or spells badly, and how to mend it."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from apr.cli import output
from apr.cli.values import MODEL_PATH
from apr.errors import Refusal

if TYPE_CHECKING:
    from apr.container.inspecting.lint import FailOn, Lint


@click.command("lint", short_help="Say what an .apr file lacks, and how to mend it.")
@click.argument("path", metavar="FILE", type=MODEL_PATH)
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning", "never"]),
    default="warning",
    show_default=True,
    help="The least finding that ends with exit code 5.",
)
@output.standard_options
def command(path: Path, fail_on: str) -> output.Result:
    """Say what the .apr file FILE lacks or spells badly, and how to mend it.

    \b
    apr lint runs/demo/model.apr --fail-on error

    Metadata and index are read, not the tensors: whether the bytes are sound says apr validate. A
    file with nothing to look at is UNKNOWN, and ends with 5 whatever --fail-on says.
    """  # noqa: D301  click reads the escaped character
    from apr.container.inspecting.lint import lint

    found = lint(path, fail_on=cast("FailOn", fail_on))
    return output.Result(
        data=found.as_dict(),
        text=_text(found),
        exit_code=0 if found.verdict == "PASS" else Refusal.exit_code,
        next_commands=(output.command_line("apr", "validate", path),),
    )


def _text(found: "Lint") -> str:
    looked_at = f"{len(found.applied)} of {len(found.applied) + len(found.not_applied)} rules"
    lines = [
        f"{found.verdict}  {found.path}: {len(found.findings)} findings, {looked_at} applied, "
        f"{found.num_tensors} tensors"
    ]
    width = max((len(finding.id) for finding in found.findings), default=0)
    for finding in found.findings:
        lines.append(f"{finding.level:<7}  {finding.id:<{width}}  {finding.found}")
        lines.append(f"{'':<{width + 11}}mend: {finding.fix}")
    return "\n".join(lines)
