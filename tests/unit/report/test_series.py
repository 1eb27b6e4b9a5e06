"""Curves of any length: bounded, and no spike is lost."""

from apr.report.series import MOST_BUCKETS, Bucket, Point, Series, extremes, smoothed


def _series(values: list[float | None], *, first_step: int = 1) -> Series:
    series = Series()
    for step, value in enumerate(values, start=first_step):
        series.add(step, value)
    return series


def test_few_values_are_kept_one_by_one() -> None:
    points = extremes(_series([3.0, 1.0, 2.0]).buckets)
    assert points == [Point(1, 3.0), Point(2, 1.0), Point(3, 2.0)]


def test_memory_is_bounded_and_both_extremes_survive() -> None:
    values: list[float | None] = [2.0] * 50_000
    values[12_345], values[40_000] = 9.0, -1.0
    series = _series(values, first_step=0)
    assert MOST_BUCKETS // 2 <= len(series.buckets) <= MOST_BUCKETS
    assert sum(bucket.count for bucket in series.buckets) == 50_000
    points = extremes(series.buckets)
    assert Point(12_345, 9.0) in points
    assert Point(40_000, -1.0) in points
    assert [point.step for point in points] == sorted(point.step for point in points)


def test_missing_values_are_counted_and_cut_the_curve() -> None:
    series = _series([1.0, 2.0, None, float("nan"), float("inf"), 1e31, 3.0])
    assert (series.num_values, series.num_missing, series.first_missing_step) == (3, 4, 3)
    assert [[bucket.lowest for bucket in run] for run in series.runs] == [[1.0, 2.0], [3.0]]


def test_steps_that_were_never_logged_do_not_cut_the_curve() -> None:
    series = Series()
    for step in (0, 100, 200):
        series.add(step, 1.0)
    assert len(series.runs) == 1


def test_missing_values_alone_stay_bounded() -> None:
    series = _series([None] * 5_000)
    assert series.num_missing == 5_000
    assert series.buckets == []
    assert len(series._buckets) <= MOST_BUCKETS


def test_readings_may_come_out_of_order() -> None:
    series = Series()
    for step in (0, 300, 100):
        series.add(step, float(step))
    assert [point.step for point in extremes(series.buckets)] == [0, 100, 300]
    assert (series.first_step, series.last_step) == (0, 300)


def test_one_giant_does_not_lift_the_smoothed_curve() -> None:
    buckets = _series([1.0] * 20 + [1e9] + [1.0] * 20).buckets
    assert {point.value for point in smoothed(buckets, half_window=3)} == {1.0}


def test_smoothing_keeps_the_first_value_and_a_straight_line() -> None:
    buckets = _series([float(100 - step) for step in range(50)]).buckets
    points = smoothed(buckets, half_window=5)
    assert points[0].value == 100.0
    assert [point.value for point in points[:40]] == [100.0 - step for step in range(40)]


def test_merging_keeps_where_the_extremes_were() -> None:
    bucket = Bucket(1, 2.0, 2.0, 5, 2.0, 5)
    bucket.merge(Bucket(2, 10.0, 1.0, 6, 9.0, 7))
    assert (bucket.count, bucket.mean) == (3, 4.0)
    assert (bucket.lowest_step, bucket.highest_step) == (6, 7)
