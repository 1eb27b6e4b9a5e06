"""Rounding is exact, and what has no scale is not taken."""

from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apr.quantization.floats import (
    reciprocals,
    require_finite,
    require_whole_blocks,
    round_half_away,
    to_float16,
    to_float16_at_least,
)


@given(st.floats(-(2.0**30), 2.0**30, width=32) | st.integers(-600, 600).map(lambda n: n / 2))
def test_halves_go_away_from_zero(value: float) -> None:
    # Decimal's half "up" is away from zero.
    expected = int(Decimal(value).to_integral_value(ROUND_HALF_UP))
    assert round_half_away(np.array([value], np.float32))[0] == expected


def test_the_largest_float_below_a_half_is_not_rounded_up() -> None:
    below = np.nextafter(np.float32(0.5), np.float32(0))
    assert np.trunc(below + np.float32(0.5)) == 1, "what a careless rounding would give"
    assert round_half_away(np.array([below, -below], np.float32)).tolist() == [0, 0]


@given(st.floats(0, 65504, width=32))
def test_a_half_at_least_is_the_next_one_up(value: float) -> None:
    half = to_float16_at_least(np.array([value], np.float32))[0]
    # As Python floats: numpy would round the value to a half before comparing.
    assert float(half) >= value
    if half > 0:
        assert float(np.nextafter(half, np.float16(0))) < value


def test_scales_beyond_half_precision_overflow() -> None:
    assert to_float16(np.array([65519.0], np.float32))[0] == 65504
    for convert, value in ((to_float16, 65520.0), (to_float16_at_least, 65505.0)):
        with pytest.raises(OverflowError, match="65504"):
            convert(np.array([value], np.float32))


def test_reciprocals_are_finite() -> None:
    values = np.array([0, 1e-45, 4, 2.0**-127], np.float32)
    assert reciprocals(values).tolist() == [0, 0, 0.25, 2.0**127]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_not_taken(bad: float) -> None:
    require_finite(np.array([3.4e38, -3.4e38], np.float32))
    with pytest.raises(ValueError, match="finite"):
        require_finite(np.array([0, bad], np.float32))


def test_a_piece_is_not_cut_inside_a_block() -> None:
    require_whole_blocks(64, 32)
    with pytest.raises(ValueError, match="multiple of the block"):
        require_whole_blocks(65, 32)
