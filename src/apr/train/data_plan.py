"""Which tokens train and which are held out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apr.errors import Refusal
from apr.shards.reader import ShardReader
from apr.train.batches import TokenRows
from apr.train.copies import Copies, count_copies, documents_of_rows
from apr.train.mixture import Mixture, mix


@dataclass(frozen=True)
class DataPlan:
    """Rows of both sides, and whether the held-out ones were `given` or `reserved`."""

    train: Mixture
    val: TokenRows
    val_source: str

    @cached_property
    def copies(self) -> Copies:
        """What of the training documents are copies, over all sources."""
        return count_copies([documents_of_rows(rows) for rows in self.train.sources])

    @property
    def unique_train_tokens(self) -> int:
        """Tokens of the training documents, over all sources, each text counted once."""
        return self.copies.unique_tokens


def plan_data(
    train: Sequence[ShardReader],
    val: ShardReader | None,
    *,
    weights: Sequence[float | None],
    sequence_length: int,
    batch_size: int,
) -> DataPlan:
    """Lay rows over the data; without held-out shards, set the first documents aside whole.

    The reserve is the documents that hold the first 16 batches; training never reads them.

    Refuses: preflight.val-empty (FALSIFY-PRETRAIN-VAL-SHARD-003) when nothing would be left;
    config.mixture-share for a source that holds nothing to train on.
    """
    if val is not None:
        return DataPlan(
            mix([_whole(shards, sequence_length) for shards in train], weights),
            _whole(val, sequence_length),
            "given",
        )
    (shards,) = train
    border = reserve(
        shards.directory,
        shards.document_ends,
        sequence_length=sequence_length,
        batch_size=batch_size,
    )
    return DataPlan(
        mix([TokenRows(shards, border, shards.num_tokens, sequence_length)], weights),
        TokenRows(shards, 0, border, sequence_length),
        "reserved",
    )


def _whole(shards: ShardReader, sequence_length: int) -> TokenRows:
    return TokenRows(shards, 0, shards.num_tokens, sequence_length)


def reserve(
    directory: Path,
    document_ends: NDArray[np.integer[Any]],
    *,
    sequence_length: int,
    batch_size: int,
) -> int:
    """Where in the stream of `directory` the documents to set aside end.

    Shapes: document_ends [N], the last one being the number of tokens.

    Refuses: preflight.val-empty, as `plan_data`.
    """
    wanted = 16 * batch_size * sequence_length + 1
    num_tokens = int(document_ends[-1])
    border = int(document_ends[min(np.searchsorted(document_ends, wanted), len(document_ends) - 1)])
    if num_tokens - border < sequence_length + 1:
        raise Refusal(
            "preflight.val-empty",
            directory,
            found=f"{num_tokens} tokens, {border} of them in the documents to set aside",
            expected=f"{wanted} tokens to hold out and more to train on",
            fix="encode a held-out corpus and pass it with --val-shard",
            upstream_id="FALSIFY-PRETRAIN-VAL-SHARD-003",
        )
    return border
