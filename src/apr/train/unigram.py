"""What a model that knows nothing of context loses: the surprisal of ids by their frequency."""

import numpy as np
from numpy.typing import NDArray

from apr.errors import DamagedFile
from apr.shards.reader import ShardReader
from apr.train.batches import TokenRows
from apr.train.row_losses import RowLosses

_PIECE_TOKENS = 1 << 20
_NUM_SAMPLED_PIECES = 64


def count_ids(
    shards: ShardReader, start: int, stop: int, *, num_ids: int, most_tokens: int | None = None
) -> NDArray[np.int64]:
    """How often each id stands in [start, stop), or in pieces spread evenly over it.

    Refuses: shards.id-range for an id that is not below `num_ids`.
    """
    counts = np.zeros(num_ids, np.int64)
    for first, last in spread(stop - start, most=most_tokens, piece=_PIECE_TOKENS):
        ids = _ids(shards, start + first, start + last, num_ids)
        counts += np.bincount(ids, minlength=num_ids)
    return counts


def surprisals_nats(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Minus the log of each id's share, every id counted once more than it was seen.

    So that none is impossible. Source: Laplace's rule of succession.
    """
    smoothed = counts.astype(np.float64) + 1.0
    return -np.log(smoothed / smoothed.sum())


def row_surprisals(
    rows: TokenRows, surprisal_nats: NDArray[np.float64], *, most_tokens: int | None = None
) -> RowLosses:
    """The surprisal of every row's targets, or of rows in pieces spread evenly over them.

    Refuses: shards.id-range.
    """
    length = rows.sequence_length
    most_rows = None if most_tokens is None else max(2, most_tokens // length)
    sums, counts = list[NDArray[np.float64]](), list[NDArray[np.int64]]()
    piece = max(1, _PIECE_TOKENS // length)
    for first, last in spread(rows.num_rows, most=most_rows, piece=piece):
        start = rows.first_token(first)
        stop = min(rows.first_token(last) + 1, rows.stop)
        targets = _ids(rows.shards, start + 1, stop, len(surprisal_nats))
        borders = np.arange(0, len(targets), length)
        sums.append(np.add.reduceat(surprisal_nats[targets], borders))
        counts.append(np.diff(borders, append=len(targets)))
    return RowLosses(np.concatenate(sums), np.concatenate(counts))


def spread(total: int, *, most: int | None, piece: int) -> list[tuple[int, int]]:
    """Ranges that cover `total` things, or evenly spread ones of `most` things together."""
    if most is None or total <= most:
        return [(at, min(at + piece, total)) for at in range(0, total, piece)]
    num_pieces = max(-(-most // piece), min(_NUM_SAMPLED_PIECES, most))
    size = most // num_pieces
    starts = np.linspace(0, total - size, num_pieces).astype(np.int64)
    return [(start, start + size) for start in starts.tolist()]


def _ids(shards: ShardReader, start: int, stop: int, num_ids: int) -> NDArray[np.uint32]:
    ids = shards.read(start, stop)
    if len(ids) and (largest := int(ids.max())) >= num_ids:
        raise DamagedFile(
            "shards.id-range",
            shards.directory,
            found=f"id {largest}",
            expected=f"ids below {num_ids}",
            fix="copy the whole directory again, or encode the corpus again",
        )
    return ids
