"""What a run read of each source of its mixture, beside the share that was asked for."""

from apr.report.markup import (
    Html,
    element,
    escape,
    left_out,
    not_measured,
    section,
    table,
    value_words,
)
from apr.report.numbers import count_words, ratio_words
from apr.report.record import Record

_MOST_ROWS = 100
_HEADER = ("Dataset", "Share asked", "Share seen", "Tokens seen", "Epochs over it")


def sources(record: Record) -> list[Html]:
    """A row for each source, where there is more than one."""
    datasets = record.child("inputs").children("train")
    counts = record.children("tokens_by_source")
    if len(datasets) < 2:
        return []
    # A record may hold fewer counts than datasets; what is missing was not measured.
    counts += [Record(record.path, "", {})] * (len(datasets) - len(counts))
    total = sum(count.number("tokens_seen") or 0 for count in counts)
    rows = [_row(dataset, count, total) for dataset, count in zip(datasets, counts, strict=False)]
    content = table(
        "Shares of the training tokens, and what was read, counted from the batches trained on",
        _HEADER,
        rows[:_MOST_ROWS],
        class_="inputs",
    )
    return [section("Mixture", content, left_out(len(rows), _MOST_ROWS), id="mixture")]


def _row(dataset: Record, count: Record, total: float) -> list[Html]:
    share, seen = dataset.number("share"), count.number("tokens_seen")
    epochs = count.number("epochs_over_data")
    reason = count.reason("tokens_seen")
    return [
        element("code", value_words(dataset.text("path"))),
        not_measured(dataset.reason("share")) if share is None else escape(_percent(share)),
        not_measured(reason) if seen is None or not total else escape(_percent(seen / total)),
        not_measured(reason) if seen is None else escape(count_words(seen)),
        not_measured(count.reason("epochs_over_data"))
        if epochs is None
        else escape(ratio_words(epochs)),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
