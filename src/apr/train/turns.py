"""Whose turn it is: rows dealt out to sources by their shares, as evenly as whole rows can be.

Source s takes its j-th row (from 0) at the time (2j + 1) / (2 q_s), where q_s is its share, and
rows follow each other in the order of these times. Up to any time t a source has then taken t q_s
rows, rounded, so that after any n rows its count is n q_s to within 1/2 + q_s (S - 2) / 2 for S
sources: half a row where there are two. What has happened up to a place is computed, not
remembered, in whole numbers.

Source: the method of Sainte-Lague, or Webster, by which seats are dealt to parties.
"""

import heapq
from collections.abc import Sequence
from fractions import Fraction
from math import floor, gcd, lcm

import numpy as np
from numpy.typing import NDArray


class Turns:
    """The endless sequence of turns of sources with the given shares, in any unit."""

    def __init__(self, shares: Sequence[Fraction]) -> None:
        assert shares
        assert all(share > 0 for share in shares)
        unit = lcm(*(share.numerator for share in shares))
        intervals = [share.denominator * (unit // share.numerator) for share in shares]
        common = gcd(*intervals)
        # Times in a unit in which the j-th turn of a source is at (2j + 1) intervals.
        self._intervals = [interval // common for interval in intervals]
        self._time_per_row = 1 / sum(Fraction(1, interval) for interval in self._intervals)

    def before(self, place: int) -> list[int]:
        """How many of the first `place` turns each source has."""
        # At this time roundings up cannot yet have dealt more than `place`.
        time = floor(max(0, 2 * place - len(self._intervals)) * self._time_per_row)
        counts = [(time // interval + 1) // 2 for interval in self._intervals]
        for source in self._deal(counts, place - sum(counts)):
            counts[source] += 1
        return counts

    def at(self, first: int, num_turns: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each turn from place `first` on: its source, and which turn of that source it is."""
        counts = self.before(first)
        sources = np.empty(num_turns, np.int64)
        visits = np.empty(num_turns, np.int64)
        for at, source in enumerate(self._deal(counts, num_turns)):
            sources[at], visits[at] = source, counts[source]
            counts[source] += 1
        return sources, visits

    def _deal(self, counts: Sequence[int], num_turns: int) -> list[int]:
        times = [
            ((2 * count + 1) * interval, source)
            for source, (count, interval) in enumerate(zip(counts, self._intervals, strict=True))
        ]
        heapq.heapify(times)
        dealt: list[int] = []
        for _ in range(num_turns):
            time, source = times[0]
            dealt.append(source)
            heapq.heapreplace(times, (time + 2 * self._intervals[source], source))
        return dealt
