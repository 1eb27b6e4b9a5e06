"""`apr compare`: runs side by side, ranked only on one held-out set."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apr.cli import output
from apr.cli.table import aligned
from apr.cli.values import LOCAL_PATH, require_used

if TYPE_CHECKING:
    from apr.report.compared_run import ComparedRun
    from apr.report.comparison import Comparison, Standing

_SHOWN_CHARACTERS = 40


@click.command("compare", short_help="Lay runs side by side.")
@click.argument("runs", nargs=-1, required=True, type=LOCAL_PATH)
@click.option("-o", "--output", "page", type=LOCAL_PATH, help="Page with the curves, as HTML.")
@click.option("--overwrite", "--force", is_flag=True, help="Replace what is at --output.")
@output.standard_options
@click.pass_context
def command(
    ctx: click.Context, runs: tuple[Path, ...], page: Path | None, overwrite: bool
) -> output.Result:
    """Rank RUNS by their held-out loss, and say in what they differ.

    \b
    apr compare runs/a runs/b -o compared.html

    Runs whose held-out sets differ by hash are not ranked but refused (exit code 5). Every
    difference is told in units of its standard error, row by row where both runs kept the loss of
    every row; below two it is no difference. Runs that have not ended are listed, not ranked.
    """  # noqa: D301  click reads the escaped character
    from apr.report.comparison import compare_runs
    from apr.report.comparison_page import require_page_place, write_comparison

    if page is None:
        require_used(ctx, "overwrite", unless="without --output")
    else:
        require_page_place(page, runs, overwrite=overwrite)
    found = compare_runs(runs, progress=output.progress())
    if page is not None:
        write_comparison(found, page)
    written = {"page": str(page) if page is not None else None}
    return output.Result(data=found.as_dict() | written, text=_text(found, page))


def _text(found: "Comparison", page: Path | None) -> str:
    from apr.report.comparison_words import headline

    lines = [headline(found), "", *_losses(found), "", *_costs(found)]
    if found.differences:
        numbers = [f"#{standing.number}" for standing in found.standings]
        rows = [
            [each.field, *(_short(value) for value in each.values)] for each in found.differences
        ]
        lines += ["", *aligned([["differs in", *numbers], *rows])]
    lines += ["", *(f"note: {caution}" for caution in found.cautions)]
    if page is not None:
        lines += ["", f"page: {page}"]
    # A name with a line end in it must not look like a line of its own.
    return "\n".join(line.replace("\r", " ").replace("\n", " ") for line in lines)


def _losses(found: "Comparison") -> list[str]:
    val = found.lowest.run.record.child("val")
    size = "" if (num_tokens := val.number("num_tokens")) is None else f", {num_tokens:,.0f} tokens"
    header = ["#", "run", "nats/token", "s.e.", "bits/byte", "above #1", ""]
    table = aligned([header, *(_loss_row(standing) for standing in found.standings)])
    return [f"held-out set {(found.lowest.run.set_sha256 or '')[:16]}{size}", *table]


def _loss_row(standing: "Standing") -> list[str]:
    from apr.report.comparison_words import difference_words, verdict_words

    run, difference = standing.run, standing.difference
    if run.loss_nats is None:
        return ["-", run.name, "-", "-", "-", "not ranked", run.reason or ""]
    return [
        str(standing.number),
        run.name,
        f"{run.loss_nats:.4f}",
        _number(run.standard_error_nats, ".4f"),
        _number(run.record.child("val").number("bits_per_byte"), ".4f"),
        "" if difference is None else difference_words(difference),
        "" if difference is None else verdict_words(difference),
    ]


def _costs(found: "Comparison") -> list[str]:
    from apr.units import format_count

    def count(value: float | None) -> str:
        return "-" if value is None else format_count(value)

    rows = [["#", "tokens", "tokens/s", "parameters", "steps", "ended"]]
    for standing in found.standings:
        run = standing.run
        rows.append(
            [
                str(standing.number) if standing.rank else "-",
                count(run.record.number("tokens_seen")),
                count(run.record.child("throughput").number("tokens_per_s")) + _of_predicted(run),
                count(run.record.child("architecture").number("num_parameters")),
                str(run.history.num_steps),
                run.outcome.headline.lower(),
            ]
        )
    return aligned(rows)


def _of_predicted(run: "ComparedRun") -> str:
    """How much of the roofline a run reached whose record has one."""
    measured = run.record.child("throughput").number("tokens_per_s")
    predicted = run.record.child("predicted").number("tokens_per_s")
    return f" ({measured / predicted:.0%} of predicted)" if measured and predicted else ""


def _number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
