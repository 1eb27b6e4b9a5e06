"""The loss of every held-out row, and what the rows say about its mean and how sure that is.

Tokens of one row are alike, so rows are the units that were drawn, not tokens: the spread from
row to row is what another draw of held-out text would change.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ONE_ROW = "fewer than two rows, which have no spread"


@dataclass(frozen=True)
class RowLosses:
    """Sums over the counted tokens of each row, in the order of the set.

    Units: `nats` per row, a sum; `num_tokens` per row, each at least 1.
    """

    nats: NDArray[np.float64]
    num_tokens: NDArray[np.int64]

    @property
    def total_tokens(self) -> int:
        """Counted tokens of all rows."""
        return int(self.num_tokens.sum())

    @property
    def mean_nats(self) -> float:
        """Mean over all tokens, each weighing the same."""
        return float(self.nats.sum()) / self.total_tokens

    @property
    def standard_error_nats(self) -> float | None:
        """Standard error of the mean over tokens; None when there are fewer than two rows.

        The mean is a ratio of two sums over rows, R = sum(y) / sum(m), with the variance
        n / (n - 1) * sum((y - R m)^2) / sum(m)^2. Rows of one document are taken as drawn apart,
        so where documents are much longer than rows the true error is larger.

        Source: Cochran 1977, Sampling Techniques, chapter 6: the ratio estimate, its variance
        from a sample, without the correction for a finite population.
        """
        num_rows = len(self.nats)
        if num_rows < 2:
            return None
        residuals = self.nats - self.mean_nats * self.num_tokens
        spread = float(residuals @ residuals) * num_rows / (num_rows - 1)
        return math.sqrt(spread) / self.total_tokens

    def is_aligned_with(self, other: "RowLosses") -> bool:
        """Whether both are of rows with the same numbers of tokens."""
        return np.array_equal(self.num_tokens, other.num_tokens)

    def minus(self, other: "RowLosses") -> "RowLosses":
        """Row by row what these lose more than others on the same rows.

        The mean of the result is the difference of the means, and its standard error is that of
        the difference: what makes a row hard for both cancels.
        """
        assert self.is_aligned_with(other), "rows of two different sets"
        return RowLosses(self.nats - other.nats, self.num_tokens)
