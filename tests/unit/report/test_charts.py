"""Pictures: nothing overlaps, a single point is visible, giants are marked."""

import itertools
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest

from apr.report.charts import MOST_DOTS, Chart, Dots, Label, Line, draw, spread
from apr.report.scales import linear_scale, step_scale
from apr.report.series import Point


def _drawn(
    lines: Sequence[Line] = (), *, dots: Sequence[Dots] = (), labels: Sequence[Label] = ()
) -> ET.Element:
    chart = Chart(
        id="x",
        title="Title & <more>",
        description="words",
        height=100,
        steps=step_scale(10, most_ticks=5),
        values=linear_scale(0.0, 10.0, most_ticks=5),
        lines=lines,
        dots=dots,
        labels=labels,
    )
    return ET.fromstring(draw(chart))


@pytest.mark.parametrize(
    "heights",
    [[50.0, 50.0, 50.0], [0.0, 1.0, 2.0], [99.0, 100.0, 100.0], [10.0, 40.0, 41.0], [5.0]],
)
def test_labels_never_overlap_and_stay_on_the_picture(heights: list[float]) -> None:
    placed = spread(heights, gap=15, limit=100)
    assert all(after - before >= 15 for before, after in itertools.pairwise(placed))
    assert min(placed) >= 0
    assert max(placed) <= 100


def test_labels_apart_stay_where_their_lines_end() -> None:
    assert spread([10.0, 50.0, 90.0], gap=15, limit=100) == [10.0, 50.0, 90.0]


def test_drawn_labels_keep_the_order_of_their_values() -> None:
    labels = [Label("a", 5.0, "low"), Label("b", 5.1, "high"), Label("c", 5.05, "middle")]
    marks = [mark for mark in _drawn(labels=labels).iter("text") if mark.get("dx") == "12"]
    heights = [float(mark.get("y") or "") for mark in marks]
    assert [mark.text for mark in marks] == ["high", "middle", "low"]
    assert all(after - before >= 15 for before, after in itertools.pairwise(heights))


def test_one_value_alone_is_still_a_mark() -> None:
    (path,) = _drawn([Line("a", [[Point(5, 5.0)]])]).iter("path")
    assert path.get("d") == "M500 50h0.01"


def test_pieces_are_not_connected() -> None:
    line = Line("a", [[Point(0, 0.0), Point(1, 10.0)], [Point(9, 0.0), Point(10, 10.0)]])
    (path,) = _drawn([line]).iter("path")
    assert path.get("d") == "M0 100L100 0M900 100L1000 0"


def test_a_value_above_the_axis_is_marked_at_the_edge() -> None:
    drawn = _drawn([Line("a", [[Point(0, 1.0), Point(5, 1e9), Point(10, 1.0)]])])
    (giant,) = [mark for mark in drawn.iter("svg") if mark.get("class") == "giant"]
    assert giant.get("x") == "50%"
    (curve,) = [path for path in drawn.iter("path") if path.get("class")]
    assert "L500 0L" in (curve.get("d") or "")


def test_too_many_readings_are_no_dots() -> None:
    points = [Point(1, 1.0)] * (MOST_DOTS + 1)
    assert not list(_drawn(dots=[Dots("a", points, ["t"] * len(points))]).iter("circle"))
    assert len(list(_drawn(dots=[Dots("a", points[1:], ["t"] * MOST_DOTS)]).iter("circle"))) == 60


def test_titles_are_escaped_inside_the_picture() -> None:
    titles = [title.text for title in _drawn().iter("title")]
    assert titles == ["Title & <more>"]
