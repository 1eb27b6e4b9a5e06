"""Where a value lies on an axis, which ticks it has, and how numbers are written beside it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from apr.report.series import quantile

_LOG_SPREAD = 10.0
_FINE_SPREAD = 60.0
_SMALLEST_RANGE = 1e-25
_MOST_DECADES = 8
_MOST_LOG_TICKS = 6
_FAR_ABOVE_LOG = 1e4
_SUFFIXES = ((1e12, 1e12, "T"), (1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "K"))


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high`, with the places that get a number."""

    low: float
    high: float
    ticks: tuple[float, ...]
    is_log: bool = False

    def fraction(self, value: float) -> float:
        """Position between 0 and 1; what lies outside is put on the edge."""
        if self.is_log:
            if value <= self.low:
                return 0.0
            span = math.log(self.high) - math.log(self.low)
            place = (math.log(value) - math.log(self.low)) / span
        else:
            place = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, place))


def linear_scale(low: float, high: float, *, most_ticks: int) -> Scale:
    """A linear axis around a range, ending on round numbers."""
    size = max(abs(low), abs(high))
    if high - low <= max(size * 1e-9, _SMALLEST_RANGE):
        margin = size * 0.1 if size > _SMALLEST_RANGE else 1.0
        low, high = low - margin, high + margin
    step = _round_step((high - low) / most_ticks)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(_tidy(index * step, step) for index in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], ticks)


def log_scale(values: Sequence[float]) -> Scale:
    """A logarithmic axis for positive values, at most eight powers of ten long."""
    high = min(max(values), _FAR_ABOVE_LOG * quantile(values, 0.9))
    low = max(min(values), high / 10**_MOST_DECADES)
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    fine = [_tidy(factor * 10.0**power, 10.0**power) for power in decades for factor in (1, 2, 5)]
    if high / low > _FINE_SPREAD:
        fine = fine[::3]
    below = max(tick for tick in fine if tick <= low * (1 + 1e-9))
    above = min(tick for tick in fine if tick >= high * (1 - 1e-9) and tick > below)
    ticks = [tick for tick in fine if below <= tick <= above]
    stride = -(-len(ticks) // _MOST_LOG_TICKS)
    return Scale(below, above, tuple(ticks[::-stride][::-1]), is_log=True)


def value_scale(
    values: Sequence[float],
    *,
    must_show: Sequence[float] = (),
    from_zero: bool = False,
    far_above: float,
    most_ticks: int,
) -> Scale:
    """The axis of a curve: it shows what is typical, and leaves rare giants to be marked.

    A giant is `far_above` times larger than nine tenths of the values; drawn to scale it would
    flatten everything else.
    """
    typical = max([quantile([abs(value) for value in values], 0.9), *must_show])
    limit = far_above * typical if typical > 0 else math.inf
    shown = [value for value in values if abs(value) <= limit]
    low, high = min([*shown, *must_show]), max([*shown, *must_show])
    return linear_scale(min(low, 0.0) if from_zero else low, high, most_ticks=most_ticks)


def is_wide(values: Sequence[float]) -> bool:
    """Whether positive values spread so far that a linear axis would hide the small ones."""
    return min(values) > 0 and max(values) / min(values) > _LOG_SPREAD


def step_scale(last_step: int, *, most_ticks: int) -> Scale:
    """The axis of steps, ending at the last step, with round ticks inside."""
    last = max(1, last_step)
    step = max(1.0, _round_step(last / most_ticks))
    ticks = tuple(index * step for index in range(int(last / step) + 1))
    return Scale(0.0, float(last), ticks)


def tick_label(value: float, *, beside: float | None = None) -> str:
    """A number beside an axis: 0, 0.25, 150, 20K, 3e-4.

    `beside` is the largest number on the same axis, whose unit this one takes.
    """
    size = abs(value if beside is None else beside)
    if value == 0:
        return "0"
    for limit, unit, suffix in _SUFFIXES:
        if limit <= size < 1e15:
            return f"{value / unit:.4g}{suffix}"
    if 1e-2 <= size < 1e4:
        return f"{value:,.0f}" if size >= 1e3 else f"{value:.4g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    for factor in (1.0, 2.0, 5.0):
        if factor * power >= least * (1 - 1e-9):
            return factor * power
    return 10.0 * power


def _tidy(value: float, step: float) -> float:
    digits = max(0, 1 - math.floor(math.log10(step)))
    return round(value, min(digits, 300))
