"""One self-contained HTML page that lays runs over one another."""

from collections.abc import Sequence
from pathlib import Path

from apr import __version__
from apr.files import require_absent, require_apart, require_no_directory, write_bytes
from apr.report.comparison import Comparison, Standing
from apr.report.comparison_words import difference_words, headline, verdict_words
from apr.report.document import document
from apr.report.markup import (
    ROW_LIMIT,
    Html,
    element,
    escape,
    join,
    left_out,
    not_measured,
    paragraph,
    section,
    table,
    value_words,
)
from apr.report.numbers import error_words, short_words
from apr.report.overlay import MOST_DRAWN, held_out_chart, look, training_chart


def require_page_place(page: Path, run_dirs: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse a place for the page before anything is read for it.

    Refuses: files.exists, files.io-failed, files.output-overlaps-input.
    """
    require_apart(page, run_dirs)
    require_no_directory(page)
    require_absent(page, overwrite=overwrite)


def write_comparison(comparison: Comparison, page: Path) -> None:
    """Write the page of a comparison, over whatever is there.

    Refuses: files.io-failed.
    Writes: `page`.
    """
    write_bytes(page, _document(comparison).encode())


def _document(comparison: Comparison) -> Html:
    standings = comparison.standings
    title = f"{len(standings)} runs on one held-out set"
    set_words = f"held-out set {comparison.lowest.run.set_sha256}"
    return document(
        escape(f"{title} (apr compare)"),
        element(
            "header", element("h1", escape(title)), paragraph(escape(set_words), class_="note")
        ),
        element("main", *_sections(comparison)),
        _footer(standings),
    )


def _sections(comparison: Comparison) -> list[Html]:
    standings = comparison.standings
    notices = [
        paragraph(escape(caution, limit_bytes=1000), class_="notice")
        for caution in comparison.cautions[:ROW_LIMIT]
    ]
    return [
        element(
            "section",
            element("h2", escape("Result"), id="result-heading"),
            element("p", escape(headline(comparison), limit_bytes=2000), class_="sentence"),
            *notices,
            left_out(len(comparison.cautions), ROW_LIMIT),
            id="result",
            class_="outcome open",
            aria_labelledby="result-heading",
        ),
        section("Held-out loss", _losses(standings), id="losses"),
        section(
            "Curves",
            held_out_chart(standings),
            training_chart(standings),
            *_not_drawn(standings),
            id="curves",
        ),
        section("What it took", _costs(standings), id="costs"),
        section("Differences", *_differences(comparison), id="differences"),
    ]


def _losses(standings: Sequence[Standing]) -> Html:
    rows = [_loss_row(standing) for standing in standings[:ROW_LIMIT]]
    header = ("Run", "Loss, nats per token", "Bits per byte", "Above the lowest", "Verdict")
    body = table(
        "The loss of the best checkpoint over the whole set, with its standard error",
        header,
        rows,
        class_="compared",
    )
    return join([body, left_out(len(standings), ROW_LIMIT)])


def _loss_row(standing: Standing) -> list[Html]:
    run, difference = standing.run, standing.difference
    if run.loss_nats is None:
        return [_name(standing), not_measured(run.reason), escape(""), escape(""), escape("")]
    error_nats = run.standard_error_nats
    loss = f"{run.loss_nats:.4f}"
    if error_nats is not None:
        loss += f" \N{PLUS-MINUS SIGN} {error_words(error_nats)}"
    bits = run.record.child("val").number("bits_per_byte")
    return [
        _name(standing),
        escape(loss),
        not_measured() if bits is None else escape(f"{bits:.4f}"),
        escape("the lowest" if difference is None else difference_words(difference)),
        escape("" if difference is None else verdict_words(difference)),
    ]


def _costs(standings: Sequence[Standing]) -> Html:
    rows = [_cost_row(standing) for standing in standings[:ROW_LIMIT]]
    header = ("Run", "Tokens seen", "Tokens/s", "Parameters", "Steps", "Ended")
    caption = "What each run is and took, as its record says"
    return table(caption, header, rows, class_="compared")


def _cost_row(standing: Standing) -> list[Html]:
    record = standing.run.record
    throughput = record.child("throughput")
    return [
        _name(standing),
        _count(record.number("tokens_seen"), record.reason("tokens_seen")),
        _count(throughput.number("tokens_per_s"), throughput.reason("tokens_per_s")),
        _count(record.child("architecture").number("num_parameters"), None),
        escape(f"{standing.run.history.num_steps:,}"),
        escape(standing.run.outcome.headline.lower()),
    ]


def _count(value: float | None, reason: str | None) -> Html:
    return not_measured(reason) if value is None else escape(short_words(value))


def _name(standing: Standing) -> Html:
    class_ = look(standing)
    mark = element("span", escape(f"#{standing.number}"), class_=f"mark {class_ or 'plain'}")
    return join([mark, element("code", escape(standing.run.name))])


def _not_drawn(standings: Sequence[Standing]) -> list[Html]:
    if len(standings) <= MOST_DRAWN:
        return []
    return [paragraph(escape(f"The first {MOST_DRAWN} of {len(standings)} runs are drawn."))]


def _differences(comparison: Comparison) -> list[Html]:
    shown = comparison.differences[:ROW_LIMIT]
    if not shown:
        return [paragraph(escape("No option, input or machine differs."))]
    numbers = [f"#{standing.number}" for standing in comparison.standings[:MOST_DRAWN]]
    rows = [
        [
            element("code", escape(each.field)),
            *(value_words(value) for value in each.values[: len(numbers)]),
        ]
        for each in shown
    ]
    caption = "Every option, input by hash, and fact of the machine that is not the same in all"
    body = table(caption, ("Field", *numbers), rows, class_="differences")
    return [
        body,
        left_out(len(comparison.differences), ROW_LIMIT),
        *_not_listed(comparison.standings),
    ]


def _not_listed(standings: Sequence[Standing]) -> list[Html]:
    if len(standings) <= MOST_DRAWN:
        return []
    return [paragraph(escape(f"The first {MOST_DRAWN} of {len(standings)} runs are listed."))]


def _footer(standings: Sequence[Standing]) -> Html:
    files = [
        element("p", element("code", escape(f"#{one.number} run.json {one.run.record_sha256}")))
        for one in standings[:ROW_LIMIT]
    ]
    words = f"Compared by apr {__version__} from these files, by sha256:"
    return element("footer", element("p", escape(words)), *files)
