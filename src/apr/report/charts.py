"""Curves as inline SVG that needs no script, no style attribute and no font.

The drawing stretches with the page while its text does not: horizontal places are percentages,
vertical ones pixels, and only the curves live in a stretched inner picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from apr.report.markup import NOTHING, Html, element, escape, paragraph
from apr.report.scales import Scale, tick_label
from apr.report.series import Point

_WIDTH = 1000
_LABEL_HEIGHT = 15
MOST_DOTS = 60
_MOST_MARKS = 40


@dataclass(frozen=True)
class Line:
    """A curve as pieces of connected points; `class_` names its look in the style sheet."""

    class_: str
    pieces: Sequence[Sequence[Point]]


@dataclass(frozen=True)
class Dots:
    """Single readings, each with the words that a pointer resting on it brings up."""

    class_: str
    points: Sequence[Point]
    titles: Sequence[str]
    radius: float = 3.5


@dataclass(frozen=True)
class Label:
    """Words beside the right edge, at the height of a value."""

    class_: str
    value: float
    words: str


@dataclass(frozen=True)
class Chart:
    """One picture: what it shows in words, its axes, and what is drawn."""

    id: str
    title: str
    description: str
    height: int
    steps: Scale
    values: Scale
    lines: Sequence[Line]
    dots: Sequence[Dots] = ()
    labels: Sequence[Label] = ()
    reference: float | None = None
    resumed_at: Sequence[int] = ()
    note: str = ""


def draw(chart: Chart) -> Html:
    """The chart as a figure: title, picture, and the words that go with it."""
    marks = [
        *_grid(chart),
        _curves(chart),
        *(mark for dots in chart.dots for mark in _dots(chart, dots)),
        *_giants(chart),
        *_labels(chart),
    ]
    return frame(
        marks,
        id=chart.id,
        title=chart.title,
        description=chart.description,
        height=chart.height,
        class_="plot",
        note=chart.note,
    )


def frame(
    marks: Sequence[Html],
    *,
    id: str,
    title: str,
    description: str,
    height: int,
    class_: str,
    note: str = "",
) -> Html:
    """Marks as a picture of the page's width that can also be heard."""
    picture = element(
        "svg",
        element("title", escape(title), id=f"{id}-title"),
        element("desc", escape(description, limit_bytes=2000), id=f"{id}-desc"),
        *marks,
        class_="chart",
        width="100%",
        height=height,
        role="img",
        aria_labelledby=f"{id}-title {id}-desc",
    )
    return element(
        "figure",
        element("figcaption", element("h3", escape(title))),
        element("div", picture, class_=class_),
        paragraph(escape(note, limit_bytes=2000)) if note else NOTHING,
        id=id,
    )


def _grid(chart: Chart) -> list[Html]:
    marks: list[Html] = []
    for tick in chart.values.ticks:
        y = _y(chart, tick)
        marks.append(element("line", class_="grid", x1=0, x2="100%", y1=y, y2=y))
        unit = None if chart.values.is_log else chart.values.high
        label = escape(tick_label(tick, beside=unit))
        marks.append(element("text", label, class_="tick y", x=0, dx=-8, y=y, dy="0.35em"))
    below = chart.height + 18
    marks.append(element("text", escape("step"), class_="tick y", x=0, dx=-8, y=below))
    for index, tick in enumerate(chart.steps.ticks):
        class_ = "tick x odd" if index % 2 else "tick x"
        x = _x(chart, tick)
        label = escape(tick_label(tick, beside=chart.steps.high))
        marks.append(element("text", label, class_=class_, x=x, y=below))
    for step in chart.resumed_at[:_MOST_MARKS]:
        x = _x(chart, step)
        marks.append(element("line", class_="resume", x1=x, x2=x, y1=0, y2=chart.height))
    if chart.reference is not None:
        y = _y(chart, chart.reference)
        marks.append(element("line", class_="reference", x1=0, x2="100%", y1=y, y2=y))
    return marks


def _curves(chart: Chart) -> Html:
    paths = [
        element("path", class_=f"curve {line.class_}", d=_path(chart, line))
        for line in chart.lines
        if any(line.pieces)
    ]
    return element(
        "svg",
        *paths,
        width="100%",
        height=chart.height,
        viewBox=f"0 0 {_WIDTH} {chart.height}",
        preserveAspectRatio="none",
    )


def _path(chart: Chart, line: Line) -> str:
    pieces: list[str] = []
    for piece in line.pieces:
        places = [
            f"{place(chart.steps.fraction(point.step) * _WIDTH)} {_y(chart, point.value)}"
            for point in piece
        ]
        if len(set(places)) == 1:
            # A path of one place draws nothing; a very short line with round ends is a dot.
            pieces.append(f"M{places[0]}h0.01")
        elif places:
            pieces.append("M" + "L".join(places))
    return "".join(pieces)


def _dots(chart: Chart, dots: Dots) -> list[Html]:
    if len(dots.points) > MOST_DOTS:
        return []
    return [
        element(
            "circle",
            element("title", escape(title)),
            class_=f"dot {dots.class_}",
            cx=_x(chart, point.step),
            cy=_y(chart, point.value),
            r=dots.radius,
        )
        for point, title in zip(dots.points, dots.titles, strict=True)
    ]


def _giants(chart: Chart) -> list[Html]:
    """Small triangles at the upper edge, where a curve leaves the picture."""
    marks: list[Html] = []
    for line in chart.lines:
        for piece in line.pieces:
            for point in piece:
                if point.value > chart.values.high and len(marks) < _MOST_MARKS:
                    shape = element("path", d="M-4 0L4 0L0 -7Z")
                    x = _x(chart, point.step)
                    marks.append(
                        element("svg", shape, class_="giant", x=x, y=-2, overflow="visible")
                    )
    return marks


def _labels(chart: Chart) -> list[Html]:
    """The labels, pushed apart where their lines end close together."""
    ordered = sorted(chart.labels, key=lambda label: -chart.values.fraction(label.value))
    heights = spread(
        [float(_y(chart, label.value)) for label in ordered],
        gap=_LABEL_HEIGHT,
        limit=chart.height,
    )
    return [
        element(
            "text",
            escape(label.words),
            class_=f"label {label.class_}",
            x="100%",
            dx=12,
            y=place(height),
            dy="0.35em",
        )
        for label, height in zip(ordered, heights, strict=True)
    ]


def spread(heights: Sequence[float], *, gap: float, limit: float) -> list[float]:
    """Ascending heights moved as little as needed to lie `gap` apart, within 0 and `limit`."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    for index in range(len(placed) - 1, -1, -1):
        below = placed[index + 1] - gap if index + 1 < len(placed) else limit
        placed[index] = min(placed[index], below)
    return placed


def _x(chart: Chart, step: float) -> str:
    return f"{place(chart.steps.fraction(step) * 100)}%"


def _y(chart: Chart, value: float) -> str:
    return place((1 - chart.values.fraction(value)) * chart.height)


def place(value: float) -> str:
    """A coordinate, as short as a hundredth of a pixel allows."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
