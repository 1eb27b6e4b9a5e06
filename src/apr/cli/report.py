"""`apr report`: a run's page, written again from its record."""

from pathlib import Path

import click

from apr.cli import output
from apr.cli.values import LOCAL_PATH


@click.command("report", short_help="Write a run's page again.")
@click.argument("run", type=LOCAL_PATH)
@output.standard_options
def command(run: Path) -> output.Result:
    """Write RUN/report.html again from run.json and steps.jsonl.

    \b
    apr report runs/demo
    """  # noqa: D301  click reads the escaped character
    from apr.report.page import write_report
    from apr.units import format_bytes

    page = write_report(run, progress=output.progress())
    size_bytes = page.stat().st_size
    return output.Result(
        data={"report": str(page), "size_bytes": size_bytes},
        text=f"wrote {page} ({format_bytes(size_bytes)})",
    )
