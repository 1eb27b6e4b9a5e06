"""Axes end on round numbers and are labelled in one unit."""

import pytest

from apr.report.scales import (
    is_wide,
    linear_scale,
    log_scale,
    step_scale,
    tick_label,
    value_scale,
)


def test_a_linear_axis_ends_on_round_ticks() -> None:
    scale = linear_scale(2.81, 8.33, most_ticks=6)
    assert scale.ticks == (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
    assert (scale.fraction(2.0), scale.fraction(9.0)) == (0.0, 1.0)


def test_a_flat_curve_has_an_axis_too() -> None:
    for value in (0.0, 3.0, -3.0, 1e-300, 1e29):
        scale = linear_scale(value, value, most_ticks=3)
        assert scale.low < value < scale.high


def test_what_lies_outside_is_put_on_the_edge() -> None:
    scale = linear_scale(0.0, 10.0, most_ticks=5)
    assert (scale.fraction(-1e30), scale.fraction(1e30)) == (0.0, 1.0)


def test_a_giant_does_not_decide_the_axis() -> None:
    values = [3.0] * 99 + [1e12]
    assert value_scale(values, far_above=2.0, most_ticks=6).high < 10
    assert value_scale([3.0] * 99 + [5.0], far_above=2.0, most_ticks=6).high >= 5.0


def test_what_must_be_seen_is_on_the_axis() -> None:
    scale = value_scale([2.0, 3.0], must_show=[8.3], far_above=2.0, most_ticks=6)
    assert scale.low <= 2.0
    assert scale.high >= 8.3


def test_a_log_axis_has_round_ticks_and_equal_steps() -> None:
    scale = log_scale([0.45, 1.0, 7.4])
    assert scale.ticks == (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    assert scale.fraction(10.0) - scale.fraction(1.0) == pytest.approx(
        scale.fraction(5.0) - scale.fraction(0.5)
    )
    assert log_scale([1e-3, 1.0, 1e4]).ticks == (1e-3, 0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4)[1::2]


def test_a_log_axis_spans_at_most_eight_powers_of_ten() -> None:
    scale = log_scale([1e-29, *[1.0] * 50, 1e29])
    assert scale.high / scale.low <= 1e10
    assert scale.fraction(1.0) > 0.2


def test_only_positive_values_that_spread_are_wide() -> None:
    assert is_wide([0.5, 6.0])
    assert not is_wide([0.5, 4.0])
    assert not is_wide([0.0, 6.0])


def test_the_step_axis_ends_at_the_last_step() -> None:
    assert step_scale(1000, most_ticks=10).ticks[-1] == 1000
    assert step_scale(990, most_ticks=10).ticks[-1] == 900
    assert step_scale(990, most_ticks=10).high == 990
    assert step_scale(0, most_ticks=10).ticks == (0.0, 1.0)
    assert step_scale(3, most_ticks=10).ticks == (0.0, 1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (0.0, "0"),
        (3.0, "3"),
        (0.25, "0.25"),
        (950.0, "950"),
        (5000.0, "5,000"),
        (20_000.0, "20K"),
        (1_500_000.0, "1.5M"),
        (3e-4, "3e-4"),
        (2.5e-5, "2.5e-5"),
        (-2.0, "-2"),
        (1e29, "1e29"),
    ],
)
def test_numbers_beside_an_axis_are_short(value: float, label: str) -> None:
    assert tick_label(value) == label


def test_labels_of_one_axis_share_a_unit() -> None:
    assert [tick_label(value, beside=10_000.0) for value in (0.0, 5e3, 1e4)] == ["0", "5K", "10K"]
