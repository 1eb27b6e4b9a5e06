"""The chart of the losses: training, held-out text, and the guess that knows nothing."""

from collections.abc import Callable, Sequence

from apr.report.charts import MOST_DOTS, Chart, Dots, Label, Line, draw
from apr.report.curves import (
    absent_curve,
    end_label,
    gap_words,
    giant_words,
    median_width,
    raw_and_middle,
    resumed_at,
    step_axis,
)
from apr.report.history import HeldOutSet, History
from apr.report.markup import Html, element, escape, not_measured, table
from apr.report.numbers import count_words, loss_words, ratio_words
from apr.report.record import Record
from apr.report.scales import value_scale
from apr.report.series import Point, Series, extremes

_HEIGHT = 300
_MOST_READINGS = 24


def loss_chart(record: Record, history: History, *, uniform_loss_nats: float | None) -> Html:
    """Training and held-out loss on one axis, with a uniform guess as the line to get under."""
    train, held_out = history.loss_nats, _held_out(history)
    curves = [extremes(series.buckets) for series in [train, *held_out.values()]]
    values = [point.value for curve in curves for point in curve]
    if not values:
        return absent_curve(
            "Loss", history.why_absent or record.child("val").reason("best_loss_nats")
        )
    guess = [] if uniform_loss_nats is None else [uniform_loss_nats]
    scale = value_scale(values, must_show=guess, far_above=2.0, most_ticks=6)
    lines = [*raw_and_middle(train, "train"), *_held_out_lines(held_out)]
    labels = [
        *end_label(lines, "train", written=lambda value: f"train {ratio_words(value)}"),
        *end_label(lines, "val", written=lambda value: f"val {ratio_words(value)}"),
        *(Label("guess", value, f"ln V {ratio_words(value)}") for value in guess),
    ]
    notes = [
        *_training_words(train),
        *_held_out_words(held_out, whole_tokens=record.child("val").number("num_tokens")),
        *("ln V: the loss of a model that finds every token equally likely." for _ in guess),
        *("Dotted uprights: the run was resumed there." for _ in resumed_at(record)[:1]),
        *giant_words(lines, scale),
        *gap_words(train),
    ]
    dots = _held_out_dots(held_out)
    best = _best(record)
    if best is not None and best.step <= history.end_step:
        dots.append(Dots("best", [best], [f"the best, {_reading(best)}"], radius=7))
        notes.append("Circled: the best over the whole set.")
    return draw(
        Chart(
            id="loss",
            title="Loss, nats per token",
            description=_description(train, held_out),
            height=_HEIGHT,
            steps=step_axis(history),
            values=scale,
            lines=lines,
            dots=dots,
            labels=labels,
            reference=uniform_loss_nats,
            resumed_at=resumed_at(record),
            note=" ".join(notes),
        )
    )


def readings(history: History) -> list[Html]:
    """The held-out readings as numbers, for whoever cannot use the picture."""
    rows = sorted(history.validations, key=lambda reading: reading.step)
    if not rows:
        return []
    stride = -(-len(rows) // _MOST_READINGS)
    shown = [*rows[:-1:stride], rows[-1]]
    cells = [
        [
            escape(f"{reading.step:,}"),
            _measured(reading.loss_nats, loss_words),
            _measured(reading.bits_per_byte, loss_words),
            _measured(reading.held_out.num_tokens, count_words),
        ]
        for reading in shown
    ]
    body = table(
        f"{len(shown)} of {history.num_validations:,} readings of held-out text",
        ("Step", "Loss, nats per token", "Bits per byte", "Tokens read"),
        cells,
        class_="readings",
    )
    heading = element("summary", escape("Held-out loss in numbers"))
    return [element("details", heading, body)]


def _measured(value: float | None, written: Callable[[float], str]) -> Html:
    return not_measured() if value is None else escape(written(value))


def _held_out(history: History) -> dict[HeldOutSet, Series]:
    """The held-out curves; the one with the most readings first."""
    measured = [item for item in history.validation_losses.items() if item[1].num_values]
    return dict(sorted(measured, key=lambda item: -item[1].num_values))


def _held_out_lines(held_out: dict[HeldOutSet, Series]) -> list[Line]:
    """The first curve connected; the others too where they are too many for dots."""
    lines: list[Line] = []
    for number, series in enumerate(held_out.values()):
        points = extremes(series.buckets)
        if number == 0 or len(points) > MOST_DOTS:
            lines.append(Line("val" if number == 0 else "other", [points]))
    return lines


def _held_out_dots(held_out: dict[HeldOutSet, Series]) -> list[Dots]:
    dots: list[Dots] = []
    for number, series in enumerate(held_out.values()):
        points = extremes(series.buckets)
        if len(points) <= MOST_DOTS:
            titles = [_reading(point) for point in points]
            dots.append(Dots("val" if number == 0 else "other", points, titles))
    return dots


def _training_words(train: Series) -> list[str]:
    if not train.num_values:
        return []
    width = median_width(train)
    middle = "" if width is None else f" faint, the median of {width:,.0f} steps strong"
    return [f"Training loss (train): every step{middle}."]


def _held_out_words(held_out: dict[HeldOutSet, Series], *, whole_tokens: float | None) -> list[str]:
    words: list[str] = []
    for number, (held_out_set, series) in enumerate(held_out.items()):
        num_tokens = held_out_set.num_tokens
        size = "an unrecorded number of" if num_tokens is None else f"{num_tokens:,}"
        if number == 0:
            words.append(f"Held-out loss (val): the same {size} tokens at every reading.")
            continue
        mark = "Hollow dots" if len(extremes(series.buckets)) <= MOST_DOTS else "Dashed"
        which = "the whole" if num_tokens == whole_tokens else "another"
        words.append(f"{mark}: {which} held-out set, {size} tokens.")
    return words


def _best(record: Record) -> Point | None:
    val = record.child("val")
    step, loss_nats = val.number("best_step"), val.number("best_loss_nats")
    return None if step is None or loss_nats is None else Point(step, loss_nats)


def _reading(point: Point) -> str:
    return f"step {point.step:,.0f}: {loss_words(point.value)} nats per token"


def _description(train: Series, held_out: dict[HeldOutSet, Series]) -> str:
    curves = {"Training loss": train, "Held-out loss": next(iter(held_out.values()), Series())}
    told = [
        f"{name} {_course(extremes(series.buckets))}"
        for name, series in curves.items()
        if series.num_values
    ]
    return " ".join(told)


def _course(points: Sequence[Point]) -> str:
    first, last = points[0], points[-1]
    lowest = min(points, key=lambda point: point.value)
    return (
        f"from {loss_words(first.value)} at step {first.step:,.0f} to {loss_words(last.value)} "
        f"at step {last.step:,.0f}; lowest {loss_words(lowest.value)} at step {lowest.step:,.0f}."
    )
