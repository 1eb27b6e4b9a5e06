"""Turns of a mixture: dealt as evenly as whole rows can be, and computed at any place."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from apr.train.turns import Turns

SHARES = st.lists(
    st.fractions(min_value=Fraction(1, 997), max_value=50, max_denominator=997),
    min_size=1,
    max_size=6,
)
NUM_TURNS = 120


@given(shares=SHARES)
def test_counts_stay_at_their_shares_after_every_turn(shares: list[Fraction]) -> None:
    sources, _ = Turns(shares).at(0, NUM_TURNS)
    total = sum(shares)
    counts = [0] * len(shares)
    for place, source in enumerate(sources.tolist(), start=1):
        counts[source] += 1
        for count, share in zip(counts, shares, strict=True):
            part = share / total
            assert abs(count - place * part) <= Fraction(1, 2) + part * max(0, len(shares) - 2) / 2


@given(shares=SHARES, first=st.integers(0, 1 << 60))
def test_what_was_dealt_before_a_place_is_computed_not_remembered(
    shares: list[Fraction], first: int
) -> None:
    turns = Turns(shares)
    before = turns.before(first)
    assert sum(before) == first
    sources, visits = turns.at(first, 50)
    later = turns.at(first + 20, 30)
    assert np.array_equal(sources[20:], later[0])
    assert np.array_equal(visits[20:], later[1])
    for source, visit in zip(sources.tolist(), visits.tolist(), strict=True):
        assert visit == before[source]
        before[source] += 1
    assert before == turns.before(first + 50)


@given(shares=SHARES, factor=st.fractions(min_value=Fraction(1, 99), max_value=99))
def test_only_the_ratios_of_shares_count(shares: list[Fraction], factor: Fraction) -> None:
    scaled = Turns([share * factor for share in shares]).at(12345, 50)
    assert np.array_equal(scaled[0], Turns(shares).at(12345, 50)[0])


def test_the_turns_are_frozen() -> None:
    """Another order would make every recorded mixture irreproducible."""
    turns = Turns([Fraction(7, 10), Fraction(2, 10), Fraction(1, 10)])
    first = [0, 0, 1, 0, 0, 2, 0, 1, 0, 0]
    assert turns.at(0, 10)[0].tolist() == first
    assert turns.at(10**9, 10)[0].tolist() == first
    assert turns.before(10**9) == [7 * 10**8, 2 * 10**8, 10**8]
