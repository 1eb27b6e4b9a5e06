"""How Q4_K chooses the scale and the minimum of 32 elements.

Elements are to be approximated by scale * q - minimum with q in 0..15 and a minimum that is not
negative. Every block is first mapped to u = (x - low) / range in 0..1, so that one candidate grid
serves all of them: for each k, q = round(k * u), and the line a * q + b that is closest to u by
weighted least squares. The closest line of all is kept, then its own q are fitted once more.

Weights are |x| + rms(x): an error matters more where the value is large. Source: the idea is
make_qkx2_quants of llama.cpp.

Arrays are [32, blocks]: a sum over 32 rows is vectorised, one along a row of 32 is not.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from apr.quantization.floats import Floats, reciprocals

LARGEST = np.float32(15)

# 13 candidates and one more fit come within 0.3 % of the error of 141 candidates and three more,
# at seven times the speed.
_CANDIDATES = np.arange(13, 16.01, 0.25, dtype=np.float32)

REACH = 0.75
"""How far an end of the range may lie outside what is representable, in steps of range / 15."""
STRETCH = 1.2
"""How much longer than range / 15 a step may be."""

_SLACK = np.float32(REACH / 15)
# Below this share of its largest value a determinant is rounding noise: all q are equal.
_SINGULAR = np.float32(1e-4)


def extremes(elements_32N: Floats) -> tuple[Floats, Floats]:
    """Low and high end of each block's range.

    The low end is never above 0, because a minimum that is stored is never negative.
    """
    return np.minimum(elements_32N.min(axis=0), np.float32(0)), elements_32N.max(axis=0)


def fit(elements_32N: Floats, low_N: Floats, high_N: Floats) -> tuple[Floats, Floats]:
    """Scale and minimum of every block, both not negative.

    A scale is at most STRETCH steps, a step being (high - low) / 15, and the ends of the range
    are at most REACH steps outside -minimum .. 15 * scale - minimum. `error_bound` rests on that.

    Shapes: [32, N], [N], [N] to [N], [N]. Magnitudes must be below 2**30 or sums overflow.
    """
    range_N = high_N - low_N
    # Where a range is too small for a reciprocal, u is 0 and the plain line stays.
    inverse_N = reciprocals(range_N)
    search = _Search((elements_32N - low_N) * inverse_N, _weights(elements_32N), -low_N * inverse_N)
    for k in _CANDIDATES:
        search.try_grid(k)
    search.refine()
    scale_N = range_N * search.slope_N
    minimum_N = np.maximum(-(low_N + range_N * search.offset_N), np.float32(0))
    # Of zeros both may be -0.
    return np.abs(scale_N), np.abs(minimum_N)


def _weights(elements_32N: Floats) -> Floats:
    weights = np.abs(elements_32N)
    # A common factor changes nothing, and without one tiny blocks would underflow.
    weights *= reciprocals(weights.max(axis=0))
    weights += np.sqrt(_dot(weights, weights) / np.float32(32))
    return weights


class _Search:
    """The closest lines so far: u is approximated by `slope_N` * q + `offset_N`."""

    def __init__(self, u_32N: Floats, weights_32N: Floats, largest_offset_N: Floats) -> None:
        self._u_32N = u_32N
        self._weights_32N = weights_32N
        self._largest_offset_N = largest_offset_N
        weighted_u_32N = weights_32N * u_32N
        self._sum_w_N = weights_32N.sum(axis=0)
        self._sum_wu_N = weighted_u_32N.sum(axis=0)
        self._sum_wuu_N = _dot(weighted_u_32N, u_32N)
        # Written over by every candidate: fresh memory costs more than the arithmetic.
        self._q_32N = np.empty_like(u_32N)
        self._weighted_q_32N = weighted_u_32N
        # The plain line through both ends always fulfils what `fit` promises.
        self.slope_N = np.full_like(largest_offset_N, np.float32(1) / LARGEST)
        self.offset_N = np.zeros_like(largest_offset_N)
        self._error_N = self._plain_error()

    def try_grid(self, k: np.float32) -> None:
        """Fit to q = round(k * u)."""
        np.multiply(self._u_32N, k, out=self._q_32N)
        np.rint(self._q_32N, out=self._q_32N)
        np.minimum(self._q_32N, LARGEST, out=self._q_32N)
        self._fit_to_q()

    def refine(self) -> None:
        """Fit to the q that the closest lines give."""
        np.subtract(self._u_32N, self.offset_N, out=self._q_32N)
        self._q_32N *= np.float32(1) / self.slope_N
        np.rint(self._q_32N, out=self._q_32N)
        np.clip(self._q_32N, np.float32(0), LARGEST, out=self._q_32N)
        self._fit_to_q()

    def _fit_to_q(self) -> None:
        np.multiply(self._weights_32N, self._q_32N, out=self._weighted_q_32N)
        sum_wq_N = self._weighted_q_32N.sum(axis=0)
        sum_wqq_N = _dot(self._weighted_q_32N, self._q_32N)
        sum_wqu_N = _dot(self._weighted_q_32N, self._u_32N)
        product_N = self._sum_w_N * sum_wqq_N
        determinant_N = product_N - sum_wq_N * sum_wq_N
        is_regular_N = determinant_N > _SINGULAR * product_N
        offset_N = sum_wqq_N * self._sum_wu_N - sum_wq_N * sum_wqu_N
        offset_N /= np.where(is_regular_N, determinant_N, np.float32(1))
        # At a larger offset the minimum would be negative; then the offset is given and the
        # slope fitted alone.
        offset_N = np.minimum(offset_N, self._largest_offset_N)
        rest_N = sum_wqu_N - offset_N * sum_wq_N
        slope_N = rest_N / np.where(is_regular_N, sum_wqq_N, np.float32(1))
        error_N = (
            self._sum_wuu_N
            - offset_N * (2 * self._sum_wu_N - offset_N * self._sum_w_N)
            - slope_N * rest_N
        )
        self._keep(
            (error_N < self._error_N) & is_regular_N & _is_within_reach(slope_N, offset_N),
            slope_N,
            offset_N,
            error_N,
        )

    def _plain_error(self) -> Floats:
        rest_32N = np.rint(self._u_32N * LARGEST)
        rest_32N /= -LARGEST
        rest_32N += self._u_32N
        return _dot(self._weights_32N * rest_32N, rest_32N)

    def _keep(
        self, is_better_N: NDArray[np.bool_], slope_N: Floats, offset_N: Floats, error_N: Floats
    ) -> None:
        np.copyto(self.slope_N, slope_N, where=is_better_N)
        np.copyto(self.offset_N, offset_N, where=is_better_N)
        np.copyto(self._error_N, error_N, where=is_better_N)


def _is_within_reach(slope_N: Floats, offset_N: Floats) -> NDArray[np.bool_]:
    return (
        (np.abs(offset_N) <= _SLACK)
        & (LARGEST * slope_N + offset_N >= 1 - _SLACK)
        & (slope_N <= np.float32(STRETCH / 15))
    )


def _dot(a_32N: Floats, b_32N: Floats) -> Any:
    return np.einsum("ij,ij->j", a_32N, b_32N)
