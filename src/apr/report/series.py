"""A curve of any length in bounded memory, with every spike kept.

Values fall into buckets of equal step width; when the buckets run out, neighbours merge and the
width doubles. A bucket remembers its extremes, not its mean alone, so one bad step in a million
is still drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

MOST_BUCKETS = 640
LARGEST_DRAWN = 1e30


@dataclass
class Bucket:
    """Values of neighbouring steps: how many, their sum, and where the extremes are."""

    count: int
    total: float
    lowest: float
    lowest_step: int
    highest: float
    highest_step: int

    @property
    def mean(self) -> float:
        """Average of the values."""
        return self.total / self.count

    @property
    def step(self) -> float:
        """Where the mean is drawn."""
        return (self.lowest_step + self.highest_step) / 2

    def merge(self, other: "Bucket") -> None:
        """Take in the values of a later neighbour."""
        self.count += other.count
        self.total += other.total
        if other.lowest < self.lowest:
            self.lowest, self.lowest_step = other.lowest, other.lowest_step
        if other.highest > self.highest:
            self.highest, self.highest_step = other.highest, other.highest_step


@dataclass
class Series:
    """One quantity over the steps of a run."""

    num_values: int = 0
    num_missing: int = 0
    first_missing_step: int | None = None
    first_step: int | None = None
    last_step: int = -1
    last_value: float | None = None
    _width: int = 1
    _buckets: dict[int, Bucket | None] = field(default_factory=dict[int, Bucket | None])

    def add(self, step: int, value: float | None) -> None:
        """Record a value; one that is missing, not finite or beyond 1e30 counts as missing."""
        index = step // self._width
        if value is None or not -LARGEST_DRAWN < value < LARGEST_DRAWN:
            self.num_missing += 1
            if self.first_missing_step is None:
                self.first_missing_step = step
            self._buckets.setdefault(index, None)
        else:
            self.num_values += 1
            if self.first_step is None or step < self.first_step:
                self.first_step = step
            if step >= self.last_step:
                self.last_step, self.last_value = step, value
            self._put(index, Bucket(1, value, value, step, value, step))
        while len(self._buckets) > MOST_BUCKETS:
            self._widen()

    def _put(self, index: int, bucket: Bucket) -> None:
        present = self._buckets.get(index)
        if present is None:
            self._buckets[index] = bucket
        else:
            present.merge(bucket)

    def _widen(self) -> None:
        narrow, self._buckets = self._buckets, {}
        self._width *= 2
        for index in sorted(narrow):
            bucket = narrow[index]
            if bucket is None:
                self._buckets.setdefault(index // 2, None)
            else:
                self._put(index // 2, bucket)

    @property
    def runs(self) -> list[list[Bucket]]:
        """The buckets in order of their steps, cut where only missing values lie between."""
        runs: list[list[Bucket]] = [[]]
        for index in sorted(self._buckets):
            bucket = self._buckets[index]
            if bucket is not None:
                runs[-1].append(bucket)
            elif runs[-1]:
                runs.append([])
        return [run for run in runs if run]

    @property
    def buckets(self) -> list[Bucket]:
        """The buckets that hold values, in order of their steps."""
        return [bucket for run in self.runs for bucket in run]


@dataclass(frozen=True)
class Point:
    """One place on a drawn line."""

    step: float
    value: float


def extremes(buckets: Sequence[Bucket]) -> list[Point]:
    """The line through every bucket's lowest and highest value, in the order they happened."""
    points: list[Point] = []
    for bucket in buckets:
        low = Point(bucket.lowest_step, bucket.lowest)
        high = Point(bucket.highest_step, bucket.highest)
        ordered = (low, high) if low.step <= high.step else (high, low)
        points.extend(ordered if low != high else (low,))
    return points


def smoothed(buckets: Sequence[Bucket], *, half_window: int) -> list[Point]:
    """Moving median of the means of `half_window` buckets to each side.

    A median, because one giant would lift a mean over its whole window. At the start the window
    is as short behind as ahead, so that a steep fall is not flattened.
    """
    means = [bucket.mean for bucket in buckets]
    points: list[Point] = []
    for index, bucket in enumerate(buckets):
        reach = min(half_window, index)
        window = means[index - reach : index + reach + 1]
        points.append(Point(bucket.step, median(window)))
    return points


def quantile(values: Sequence[float], fraction: float) -> float:
    """The value below which `fraction` of the values lie; there must be some."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]
