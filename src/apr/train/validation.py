"""The held-out loss: a fixed set, read whole, every token weighing the same."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from apr.errors import Refusal
from apr.model.transformer import Transformer
from apr.progress import Progress, Report, silent
from apr.tokenizer.conservation import bytes_per_id
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.batches import Batch, TokenRows, permute
from apr.train.plausible import LOWEST_NATS, implausible
from apr.train.ranks import ALONE, Ranks
from apr.train.row_losses import ONE_ROW, RowLosses
from apr.train.step import SummedLoss, to_device
from apr.units import bits_per_byte


@dataclass(frozen=True)
class ValidationSet:
    """Rows that are read at every validation, and what identifies them.

    `text_bytes` is None when the tokens' bytes cannot be known.
    """

    rows: TokenRows
    row_indices: NDArray[np.int64]
    num_tokens: int
    text_bytes: int | None
    sha256: str


@dataclass(frozen=True)
class ValidationResult:
    """The loss over one set; `set_sha256` says which, `rows` what it is the mean of."""

    loss_nats: float
    bits_per_byte: float | None
    num_tokens: int
    set_sha256: str
    rows: RowLosses

    @property
    def standard_error_nats(self) -> float | None:
        """How far the loss may be off because this text was drawn and no other."""
        return self.rows.standard_error_nats

    def standard_error_facts(self, prefix: str = "") -> dict[str, float | str | None]:
        """The standard error as records keep it: a number, or null with the reason beside it."""
        error_nats = self.standard_error_nats
        return {
            f"{prefix}standard_error_nats": error_nats,
            f"{prefix}standard_error_nats_reason": ONE_ROW if error_nats is None else None,
        }


def whole_set(rows: TokenRows, tokenizer: Tokenizer) -> ValidationSet:
    """All held-out rows."""
    indices = np.arange(rows.num_rows, dtype=np.int64)
    covers_all = rows.start == 0 and rows.stop == rows.shards.num_tokens
    text_bytes = rows.shards.manifest.text_bytes if covers_all else None
    return _validation_set(rows, indices, tokenizer, text_bytes)


def subset(rows: TokenRows, tokenizer: Tokenizer, *, max_tokens: int) -> ValidationSet:
    """A fixed choice of rows, spread over the set; the same for every run on the same shards.

    At least two rows where there are two, because one alone has no standard error.
    """
    # The last row may be short, so that whole rows alone would leave some of the set out.
    if max_tokens >= rows.num_targets:
        return whole_set(rows, tokenizer)
    wanted = min(rows.num_rows, max(2, max_tokens // rows.sequence_length))
    places = np.arange(wanted, dtype=np.uint64)
    key = f"validation subset of {rows.shards.manifest_sha256}"
    return _validation_set(rows, np.sort(permute(places, rows.num_rows, key=key)), tokenizer, None)


def validate(
    model: Transformer,
    held_out: ValidationSet,
    *,
    batch_size: int,
    document_mask: bool,
    summed_loss: SummedLoss,
    ranks: Ranks = ALONE,
    progress: Report = silent,
    activity: str = "validating",
) -> ValidationResult:
    """Mean loss over every counted token of the set, whichever rank has read it.

    Runs the training loss itself, so that validation and training are the same function and a
    compiled kernel serves both; no gradient is computed.

    Refuses: train.non-finite-validation, train.impossible-validation.
    """
    num_rows = len(held_out.row_indices)
    nats, counts = np.zeros(num_rows, np.float64), np.zeros(num_rows, np.int64)
    # The ranks take turns, and each takes as many: one that has no row left reads none.
    turn_rows = batch_size * ranks.world_size
    for turn in range(0, num_rows, turn_rows):
        at = turn + batch_size * ranks.rank
        batch = held_out.rows.batch(
            held_out.row_indices[at : at + batch_size], batch_size=batch_size
        )
        here = slice(at, at + len(batch.row_indices))
        nats[here] = _row_nats(model, batch, summed_loss, document_mask=document_mask)
        counts[here] = batch.num_counted_tokens_by_row
        share = min(1.0, (turn + turn_rows) / num_rows)
        done = int(share * held_out.num_tokens)
        progress(Progress(activity, done, held_out.num_tokens, "tokens"))
    losses = RowLosses(ranks.total(nats), ranks.total(counts))
    num_tokens = losses.total_tokens
    assert num_tokens == held_out.num_tokens, "a validation read another set than it names"
    loss_nats = losses.mean_nats
    _require_possible(loss_nats, held_out)
    bits = (
        None
        if held_out.text_bytes is None
        else bits_per_byte(
            loss_nats=loss_nats, num_tokens=num_tokens, text_bytes=held_out.text_bytes
        )
    )
    return ValidationResult(loss_nats, bits, num_tokens, held_out.sha256, losses)


def _require_possible(loss_nats: float, held_out: ValidationSet) -> None:
    where = held_out.rows.shards.directory
    if not math.isfinite(loss_nats):
        raise Refusal(
            "train.non-finite-validation",
            where,
            found=f"held-out loss {loss_nats}",
            expected="a finite loss",
            fix="resume from an earlier checkpoint with a lower learning rate in a new run",
            upstream_id="GATE-TRAIN-007",
        )
    problem = implausible(loss_nats)
    if problem is not None:
        raise Refusal(
            "train.impossible-validation",
            where,
            found=problem,
            expected=f"at least {LOWEST_NATS:g} nats per token",
            fix="look for the held-out text in the training text (apr tokenize explain, "
            "apr corpus decontaminate), and whether the text repeats one token",
        )


def _row_nats(
    model: Transformer, batch: Batch, summed_loss: SummedLoss, *, document_mask: bool
) -> NDArray[np.float64]:
    """The loss of every row of the set that is in the batch, without those that fill it up."""
    inputs, targets, documents = to_device(batch, model, document_mask=document_mask)
    with torch.no_grad():
        losses_B = summed_loss(model, inputs, targets, documents).cpu()
    return losses_B.numpy().astype(np.float64)[: len(batch.row_indices)]


def _validation_set(
    rows: TokenRows, row_indices: NDArray[np.int64], tokenizer: Tokenizer, text_bytes: int | None
) -> ValidationSet:
    num_tokens, target_bytes = 0, 0
    lengths = bytes_per_id(tokenizer.definition)
    for batch in rows.in_order(batch_size=64, row_indices=row_indices):
        targets = batch.target_ids_BT[batch.target_ids_BT >= 0]
        num_tokens += len(targets)
        if lengths is not None:
            target_bytes += int(lengths[targets].sum())
    if text_bytes is None and lengths is not None:
        text_bytes = target_bytes
    return ValidationSet(rows, row_indices, num_tokens, text_bytes, rows.sha256(row_indices))
