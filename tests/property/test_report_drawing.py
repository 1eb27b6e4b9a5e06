"""Whatever was measured, the axis is sound and the markup well-formed."""

import html
import re
import xml.etree.ElementTree as ET
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from apr.report.charts import spread
from apr.report.markup import element, escape
from apr.report.scales import is_wide, log_scale, step_scale, tick_label, value_scale
from apr.report.series import LARGEST_DRAWN, MOST_BUCKETS, Series, extremes, smoothed

_drawable = st.floats(-LARGEST_DRAWN, LARGEST_DRAWN, exclude_min=True, exclude_max=True)
_curves = st.lists(_drawable, min_size=1, max_size=50)


@given(_curves, st.booleans(), st.sampled_from([2.0, 10.0]), st.integers(2, 8))
def test_every_value_has_a_place_on_a_linear_axis(
    values: list[float], from_zero: bool, far_above: float, most_ticks: int
) -> None:
    scale = value_scale(values, from_zero=from_zero, far_above=far_above, most_ticks=most_ticks)
    assert scale.low < scale.high
    assert all(before < after for before, after in pairwise(scale.ticks))
    assert 2 <= len(scale.ticks) <= most_ticks + 3
    assert all(0.0 <= scale.fraction(value) <= 1.0 for value in values)
    assert all(len(tick_label(tick, beside=scale.high)) < 12 for tick in scale.ticks)


@given(st.lists(st.floats(1e-30, 1e29), min_size=2, max_size=50).filter(is_wide))
def test_every_value_has_a_place_on_a_log_axis(values: list[float]) -> None:
    scale = log_scale(values)
    assert 0 < scale.low < scale.high
    assert all(before < after for before, after in pairwise(scale.ticks))
    assert 2 <= len(scale.ticks) <= 6
    assert all(0.0 <= scale.fraction(value) <= 1.0 for value in values)


@given(st.integers(0, 10**15))
def test_the_step_axis_is_sound_for_any_run(last_step: int) -> None:
    scale = step_scale(last_step, most_ticks=10)
    assert scale.ticks[0] == 0
    assert 2 <= len(scale.ticks) <= 11
    assert scale.ticks[-1] <= scale.high


@given(st.lists(st.one_of(st.none(), _drawable), max_size=3 * MOST_BUCKETS))
def test_no_curve_loses_its_extremes(values: list[float | None]) -> None:
    series = Series()
    for step, value in enumerate(values):
        series.add(step, value)
    kept = [value for value in values if value is not None]
    assert sum(bucket.count for bucket in series.buckets) == len(kept) == series.num_values
    assert len(series.buckets) <= MOST_BUCKETS
    if kept:
        drawn = [point.value for point in extremes(series.buckets)]
        assert (min(drawn), max(drawn)) == (min(kept), max(kept))
        middle = [point.value for point in smoothed(series.buckets, half_window=3)]
        assert len(middle) == len(series.buckets)


@given(st.text())
def test_any_text_is_well_formed_and_comes_back(text: str) -> None:
    made = ET.fromstring(element("p", escape(text, limit_bytes=10**9)))
    named = re.sub(r"⟨U\+([0-9A-F]{4,6})⟩", lambda m: chr(int(m.group(1), 16)), made.text or "")
    assert re.sub(r"⟨U\+([0-9A-F]{4,6})⟩", lambda m: chr(int(m.group(1), 16)), text) == named


@given(st.text(), st.integers(0, 500))
def test_no_text_is_larger_than_its_limit(text: str, limit_bytes: int) -> None:
    made = escape(text, limit_bytes=limit_bytes)
    kept = re.sub(r"\u2026 \([\d,]+ more characters\)$", "", made)
    assert len(kept.encode()) <= limit_bytes
    assert html.unescape(kept) is not None
    ET.fromstring(element("p", made))


@given(st.lists(st.floats(0, 300), min_size=1, max_size=4))
def test_labels_find_room(heights: list[float]) -> None:
    placed = spread(sorted(heights), gap=15, limit=300)
    assert all(after - before >= 15 - 1e-9 for before, after in pairwise(placed))
    assert placed[0] >= 0
    assert placed[-1] <= 300
