"""A horizontal bar chart: a few named quantities on one scale from zero."""

from collections.abc import Sequence
from dataclasses import dataclass

from apr.report.charts import frame, place
from apr.report.markup import Html, element, escape

_PITCH = 34
_THICKNESS = 14


@dataclass(frozen=True)
class Bar:
    """One named quantity."""

    name: str
    value: float
    words: str
    is_main: bool = False


def draw_bars(bars: Sequence[Bar], *, id: str, title: str, description: str) -> Html:
    """The bars under each other, named at the left and numbered at their ends."""
    longest = max(bar.value for bar in bars)
    marks: list[Html] = []
    for index, bar in enumerate(bars):
        class_ = "main" if bar.is_main else "other"
        middle = index * _PITCH + _PITCH // 2
        width = f"{place(100 * bar.value / longest) if bar.value > 0 else 0}%"
        name = {"class_": f"name {class_}", "x": 0, "dx": -10, "y": middle, "dy": "0.35em"}
        amount = {"class_": f"amount {class_}", "x": width, "dx": 8, "y": middle, "dy": "0.35em"}
        body = {"class_": f"bar {class_}", "x": 0, "width": width, "rx": 2}
        top = middle - _THICKNESS // 2
        marks += [
            element("text", escape(bar.name), **name),
            element("rect", **body, y=top, height=_THICKNESS),
            element("text", escape(bar.words), **amount),
        ]
    height = len(bars) * _PITCH
    return frame(marks, id=id, title=title, description=description, height=height, class_="bars")
