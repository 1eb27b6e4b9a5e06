"""The smaller charts of a run, and what every curve over the steps is made of."""

from collections.abc import Callable, Sequence

from apr.report.charts import Chart, Label, Line, draw
from apr.report.history import History
from apr.report.markup import Html, element, escape, not_measured, paragraph
from apr.report.record import Record
from apr.report.scales import (
    Scale,
    is_wide,
    log_scale,
    step_scale,
    tick_label,
    value_scale,
)
from apr.report.series import LARGEST_DRAWN, Series, extremes, smoothed

_HEIGHT = 104
_MOST_STEP_TICKS = 10
_WINDOWS_PER_RUN = 15
_SMOOTHED_FROM = 40


def learning_rate_chart(record: Record, history: History) -> Html:
    """The learning rate that the optimizer really had."""
    return _small_chart(
        record,
        history,
        history.lr_applied,
        id="learning-rate",
        title="Learning rate, read back from the optimizer",
        from_zero=True,
        is_noisy=False,
    )


def gradient_norm_chart(record: Record, history: History) -> Html:
    """The global gradient norm before clipping; logarithmic when it spreads widely."""
    return _small_chart(
        record,
        history,
        history.grad_norm,
        id="gradient-norm",
        title="Gradient norm, before clipping",
        may_be_log=True,
    )


def throughput_chart(record: Record, history: History) -> Html:
    """Tokens per second of every step, validation and checkpoints between two steps included."""
    return _small_chart(
        record,
        history,
        history.tokens_per_s,
        id="throughput",
        title="Throughput, tokens per second",
        from_zero=True,
        note="From one step to the next, with whatever lay between: validation and checkpoints "
        "show as dips.",
    )


def _small_chart(
    record: Record,
    history: History,
    series: Series,
    *,
    id: str,
    title: str,
    from_zero: bool = False,
    is_noisy: bool = True,
    may_be_log: bool = False,
    note: str = "",
) -> Html:
    values = [point.value for point in extremes(series.buckets)]
    if not values:
        return absent_curve(title, history.why_absent)
    if may_be_log and is_wide(values):
        scale, title = log_scale(values), f"{title} (logarithmic)"
    else:
        scale = value_scale(values, from_zero=from_zero, far_above=10.0, most_ticks=3)
    lines = raw_and_middle(series, "plain", is_noisy=is_noisy)
    notes = [note] if note else []
    course = f"{tick_label(min(values))} to {tick_label(max(values))}"
    return draw(
        Chart(
            id=id,
            title=title,
            description=f"From {course} over {series.num_values:,} steps.",
            height=_HEIGHT,
            steps=step_axis(history),
            values=scale,
            lines=lines,
            labels=end_label(lines, "plain", written=tick_label),
            resumed_at=resumed_at(record),
            note=" ".join([*notes, *giant_words(lines, scale), *gap_words(series)]),
        )
    )


def raw_and_middle(series: Series, class_: str, *, is_noisy: bool = True) -> list[Line]:
    """Every extreme as a faint line and the moving median as a strong one; or one line."""
    raw = [extremes(run) for run in series.runs]
    if not is_noisy or median_width(series) is None:
        return [Line(class_, raw)]
    middle = [smoothed(run, half_window=_half_window(series)) for run in series.runs]
    return [Line(f"{class_} raw", raw), Line(class_, middle)]


def median_width(series: Series) -> float | None:
    """Steps that one median is taken over; None for a curve too short to need one."""
    if series.num_values < _SMOOTHED_FROM:
        return None
    return (2 * _half_window(series) + 1) * series.num_values / len(series.buckets)


def _half_window(series: Series) -> int:
    return max(3, len(series.buckets) // (2 * _WINDOWS_PER_RUN))


def end_label(
    lines: Sequence[Line], class_: str, *, written: Callable[[float], str]
) -> list[Label]:
    """The last value of the line that looks like `class_`, to stand beside its end."""
    ends = [
        line.pieces[-1][-1].value
        for line in lines
        if line.class_ == class_ and line.pieces and line.pieces[-1]
    ]
    return [Label(class_, value, written(float(f"{value:.3g}"))) for value in ends]


def step_axis(history: History) -> Scale:
    """The axis all charts of a run share."""
    last = [series.last_step for series in history.validation_losses.values()]
    return step_scale(max([history.end_step, *last]), most_ticks=_MOST_STEP_TICKS)


def resumed_at(record: Record) -> list[int]:
    """The steps after which the run was taken up again."""
    steps = [entry.number("step") for entry in record.children("resumes")]
    return [int(step) for step in steps if step is not None]


def giant_words(lines: Sequence[Line], scale: Scale) -> list[str]:
    """What the triangles at the upper edge stand for, where there are any."""
    points = [point for line in lines for piece in line.pieces for point in piece]
    giants = [point for point in points if point.value > scale.high]
    if not giants:
        return []
    largest = max(giants, key=lambda point: point.value)
    return [
        f"Triangles: the curve leaves the picture; it reaches {tick_label(largest.value)} at step "
        f"{largest.step:,.0f}."
    ]


def gap_words(series: Series) -> list[str]:
    """How many steps could not be drawn, where there are any."""
    if not series.num_missing:
        return []
    times = "1 step has" if series.num_missing == 1 else f"{series.num_missing:,} steps have"
    return [
        f"{times} no value to draw (absent, not finite, or beyond {tick_label(LARGEST_DRAWN)}); "
        f"the first is step {series.first_missing_step:,}."
    ]


def absent_curve(title: str, reason: str | None) -> Html:
    """What stands in a chart's place when nothing was measured."""
    return element(
        "figure",
        element("figcaption", element("h3", escape(title))),
        paragraph(not_measured(reason)),
    )
