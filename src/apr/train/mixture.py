"""Which rows are in which batch: a pure function of the data, the weights, the seed, the step.

Sources take turns by their shares (`train.turns`). Each is read in its own keyed order, every row
once before any is read again, and in another order in its next epoch. A single source has every
turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from apr.errors import UsageRefusal
from apr.train.batches import Batch, TokenRows
from apr.train.turns import Turns


@dataclass(frozen=True)
class Mixture:
    """Training rows of one source or several, and the share of each in the training tokens."""

    sources: tuple[TokenRows, ...]
    shares: tuple[Fraction, ...]
    """They add up to 1."""

    @property
    def num_targets(self) -> int:
        """Tokens that are a target once when each source is read once."""
        return sum(rows.num_targets for rows in self.sources)

    @property
    def num_tokens(self) -> int:
        """Tokens of all sources, copies of documents included."""
        return sum(rows.stop - rows.start for rows in self.sources)

    @cached_property
    def turns(self) -> Turns:
        """The order in which the sources take rows."""
        # A source whose last row is short needs more rows for the same tokens.
        return Turns(
            [
                share * rows.num_rows / rows.num_targets
                for share, rows in zip(self.shares, self.sources, strict=True)
            ]
        )

    def epochs_after(self, num_rows: int) -> list[float]:
        """How often each source has been read when `num_rows` rows of the mixture have."""
        counts = self.turns.before(num_rows)
        return [count / rows.num_rows for count, rows in zip(counts, self.sources, strict=True)]


def mix(sources: Sequence[TokenRows], weights: Sequence[float | None]) -> Mixture:
    """Sources by weights, or by their tokens where no weight is given.

    Refuses: config.mixture-share for a source that holds nothing to train on.
    """
    for rows in sources:
        if not rows.num_targets:
            raise _no_share(rows, f"{rows.stop - rows.start} tokens", "at least 2")
    # A weight is taken as it is written: 0.7 is seven tenths.
    parts = [
        Fraction(rows.num_targets) if weight is None else Fraction(str(weight))
        for rows, weight in zip(sources, weights, strict=True)
    ]
    total = sum(parts, Fraction(0))
    return Mixture(tuple(sources), tuple(part / total for part in parts))


def require_every_source(mixture: Mixture, *, num_rows: int) -> None:
    """Refuse a share so small that a whole run would read no row of its source.

    Refuses: config.mixture-share.
    """
    counts = mixture.turns.before(num_rows)
    for rows, share, count in zip(mixture.sources, mixture.shares, counts, strict=True):
        if not count:
            found = f"no row in the {num_rows} rows of the run, at a share of {float(share):.3g}"
            raise _no_share(rows, found, "at least one row")


def _no_share(rows: TokenRows, found: str, expected: str) -> UsageRefusal:
    return UsageRefusal(
        "config.mixture-share",
        str(rows.shards.directory),
        found=found,
        expected=expected,
        fix="weigh it more, train longer, or leave it out",
    )


@dataclass(frozen=True)
class BatchPart:
    """What one rank reads of every training batch."""

    order: "BatchOrder"
    part: int
    num_parts: int

    def batch(self, step: int) -> Batch:
        """This part of the batch of step `step`."""
        return self.order.batch(step, part=self.part, num_parts=self.num_parts)


@dataclass(frozen=True)
class BatchOrder:
    """Rows of every training batch, by step."""

    mixture: Mixture
    batch_size: int
    seed: int

    def places(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The source and the visit to it of each row of step `step`, the first being 1."""
        return self.mixture.turns.at((step - 1) * self.batch_size, self.batch_size)

    def rows(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The source and the row index of each row of a step; a source wraps into more epochs."""
        source_indices, visits = self.places(step)
        row_indices = np.empty(self.batch_size, np.int64)
        for source_index in np.unique(source_indices):
            here = source_indices == source_index
            rows = self.mixture.sources[source_index]
            row_indices[here] = rows.visited(visits[here], seed=self.seed)
        return source_indices, row_indices

    def batch(self, step: int, *, part: int = 0, num_parts: int = 1) -> Batch:
        """The batch of optimizer step `step`, or one of equal parts of it, in order."""
        size = self.batch_size // num_parts
        source_indices, row_indices = (
            each[part * size : (part + 1) * size] for each in self.rows(step)
        )
        shape = (size, self.mixture.sources[0].sequence_length)
        inputs, targets, documents = (np.empty(shape, np.int64) for _ in range(3))
        for source_index in np.unique(source_indices):
            here = np.flatnonzero(source_indices == source_index)
            rows = self.mixture.sources[source_index]
            read = rows.batch(row_indices[here], batch_size=len(here))
            inputs[here] = read.input_ids_BT
            targets[here] = read.target_ids_BT
            documents[here] = read.document_numbers_BT
        return Batch(
            inputs,
            targets,
            documents,
            tuple(row_indices.tolist()),
            tuple(source_indices.tolist()),
        )
