"""The losses of several runs over one another, each in a colour of its own."""

from collections.abc import Sequence

from apr.report.charts import MOST_DOTS, Chart, Dots, Label, Line, draw
from apr.report.comparison import Standing
from apr.report.curves import absent_curve, end_label, giant_words, raw_and_middle
from apr.report.history import HeldOutSet, History
from apr.report.markup import Html
from apr.report.numbers import loss_words, ratio_words
from apr.report.scales import step_scale, value_scale
from apr.report.series import Series, extremes

MOST_DRAWN = 8
_HEIGHT = 300
_MOST_STEP_TICKS = 10


def look(standing: Standing) -> str | None:
    """The class of a run's curves and numbers; None for a run that is not drawn."""
    return f"run-{standing.number}" if standing.number <= MOST_DRAWN else None


def held_out_chart(standings: Sequence[Standing]) -> Html:
    """The periodic readings of one held-out set, where the runs read the same one on the way."""
    title = "Held-out loss on the way, nats per token"
    shared = _shared_set([standing.run.history for standing in standings])
    if shared is None:
        return absent_curve(title, "the runs read no common set on the way (--eval-tokens)")
    curves = [
        (standing, standing.run.history.validation_losses[shared])
        for standing in standings[:MOST_DRAWN]
        if shared in standing.run.history.validation_losses
    ]
    size = "" if shared.num_tokens is None else f" of {shared.num_tokens:,} tokens"
    note = f"The same set{size} at every reading of every run."
    return _chart(curves, id="held-out", title=title, note=note, is_noisy=False)


def training_chart(standings: Sequence[Standing]) -> Html:
    """The training losses by step; strong the moving median where there are many steps."""
    curves = [
        (standing, standing.run.history.loss_nats)
        for standing in standings[:MOST_DRAWN]
        if standing.run.history.loss_nats.num_values
    ]
    note = "By step, whatever a step held. Losses on training text do not rank runs."
    return _chart(
        curves, id="training", title="Training loss, nats per token", note=note, is_noisy=True
    )


def _chart(
    curves: Sequence[tuple[Standing, Series]], *, id: str, title: str, note: str, is_noisy: bool
) -> Html:
    values = [point.value for _, series in curves for point in extremes(series.buckets)]
    if not values:
        return absent_curve(title, "no run has a reading")
    lines: list[Line] = []
    dots: list[Dots] = []
    labels = [
        label
        for standing, series in curves
        for label in _add(standing, series, lines, dots, is_noisy=is_noisy)
    ]
    scale = value_scale(values, far_above=2.0, most_ticks=6)
    last_step = max(standing.run.history.last_step for standing, _ in curves)
    return draw(
        Chart(
            id=id,
            title=title,
            description=" ".join(_course(*curve) for curve in curves),
            height=_HEIGHT,
            steps=step_scale(last_step, most_ticks=_MOST_STEP_TICKS),
            values=scale,
            lines=lines,
            dots=dots,
            labels=labels,
            note=" ".join([note, *giant_words(lines, scale)]),
        )
    )


def _add(
    standing: Standing, series: Series, lines: list[Line], dots: list[Dots], *, is_noisy: bool
) -> list[Label]:
    class_ = look(standing) or ""
    # Of several runs the extremes would cover each other; the middle of each is drawn alone.
    drawn = raw_and_middle(series, class_, is_noisy=is_noisy)[-1:]
    lines += drawn
    points = extremes(series.buckets)
    if not is_noisy and len(points) <= MOST_DOTS:
        titles = [
            f"#{standing.number}, step {point.step:,.0f}: {loss_words(point.value)}"
            for point in points
        ]
        dots.append(Dots(class_, points, titles))
    return end_label(
        drawn, class_, written=lambda value: f"#{standing.number} {ratio_words(value)}"
    )


def _shared_set(histories: Sequence[History]) -> HeldOutSet | None:
    """The set that was read most often, of those that every run with readings has read.

    A set without a hash is no set that two runs could share.
    """
    readings = [history.validation_losses for history in histories if history.validation_losses]
    if not readings:
        return None
    common = [
        held_out
        for held_out in readings[0]
        if held_out.sha256 is not None and all(held_out in each for each in readings)
    ]
    return max(common, key=lambda one: readings[0][one].num_values, default=None)


def _course(standing: Standing, series: Series) -> str:
    last = "nothing" if series.last_value is None else loss_words(series.last_value)
    return f"#{standing.number} ends at {last} after step {series.last_step:,}."
