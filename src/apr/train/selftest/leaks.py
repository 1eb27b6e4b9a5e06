"""Does a prediction see what it must not: a later token, or another document of its row.

One side is perturbed and the other compared bit by bit, in the precision and with the kernels of
the run. Each probe must also see what it perturbs, or it has proven nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from apr.model.transformer import Transformer
from apr.train.batches import IGNORED_TARGET, Batch
from apr.train.gates import Finding
from apr.train.loss import masked_logits
from apr.train.selftest.small_run import size_of
from apr.train.step import MaskedLogits, SummedLoss, to_device

_FIX = "report this; until then no loss of this run means anything"
_CAUSAL = "the same bits before a perturbed token, others from it on"
_DOCUMENTS = "the same bits outside a perturbed document, others in it and, unmasked, after it"


def check_causal_leak(
    model: Transformer,
    few: Batch,
    batch: Batch,
    *,
    document_mask: bool,
    logits: MaskedLogits,
    summed_loss: SummedLoss,
) -> Finding:
    """A token moves logits from itself on, and none before; the first and the last included.

    `few` rows are compared logit by logit; on `batch`, of the run's own shape, the loss of what
    comes before the token.
    """
    few, batch = _one_document_per_row(few), _one_document_per_row(batch)
    length = few.input_ids_BT.shape[1]
    places = sorted({0, 1, length // 4, length // 2, 3 * length // 4, length - 2, length - 1})
    places = [at for at in places if 0 <= at < length]
    if not places or length < 2:
        return Finding("UNKNOWN", f"{size_of(few)}: nothing before or after", _CAUSAL, _FIX)
    probe = _Probe(model, few, document_mask=document_mask, logits=logits)
    reaches_later = False
    for at in places:
        moved_BT = probe.moved_by(_mask_of(few, slice(at, at + 1)))
        if moved_BT[:, :at].any():
            place = int(np.argmax(moved_BT[:, :at].any(0)))
            found = f"the token at {at} moves the logits at {place}"
            return Finding("FAIL", found, _CAUSAL, _FIX)
        if not moved_BT[:, at].all():
            return Finding("UNKNOWN", f"the token at {at} moves no logit", _CAUSAL, _FIX)
        reaches_later |= bool(moved_BT[:, at + 1 :].any())
    if not reaches_later:
        return Finding("UNKNOWN", "no token moves any later logit", _CAUSAL, _FIX)
    for at in sorted({batch.input_ids_BT.shape[1] // 2, batch.input_ids_BT.shape[1] - 1}):
        reached = _losses_moved(
            model,
            batch,
            _mask_of(batch, slice(at, at + 1)),
            _mask_of(batch, slice(0, at)),
            document_mask=document_mask,
            summed_loss=summed_loss,
        )
        if verdict := _judge_loss(reached, f"the token at {at}", _CAUSAL):
            return verdict
    return Finding(
        "PASS",
        f"{len(places)} places in {size_of(few)}: no logit before moves, each moves its own; so "
        f"does the loss of {size_of(batch)}",
        _CAUSAL,
    )


def check_document_leak(
    model: Transformer,
    packed: Batch,
    batch: Batch,
    *,
    logits: MaskedLogits,
    summed_loss: SummedLoss,
    unmasked_logits: MaskedLogits = masked_logits,
) -> Finding:
    """A document moves its own logits and no others of its row; without the mask it would.

    `packed` rows hold several documents (`packed_rows`); those of `batch`, of the run's own shape,
    are halved into two.
    """
    if packed.input_ids_BT.shape[1] < 2:
        return Finding("UNKNOWN", "no row of at least two tokens", _DOCUMENTS, _FIX)
    inside_BT = _longest_but_last(packed.document_numbers_BT)
    after_BT = np.maximum.accumulate(inside_BT, axis=1) & ~inside_BT
    masked = _Probe(model, packed, document_mask=True, logits=logits).moved_by(inside_BT)
    if (masked & ~inside_BT).any():
        row, place = (int(at[0]) for at in np.nonzero(masked & ~inside_BT))
        found = f"a document of row {packed.row_indices[row]} moves the logits at {place}, outside"
        return Finding("FAIL", found, _DOCUMENTS, _FIX)
    if not masked[inside_BT].all():
        return Finding("UNKNOWN", "a perturbed token moves no logit", _DOCUMENTS, _FIX)
    without = _Probe(model, packed, document_mask=False, logits=unmasked_logits)
    unmasked = without.moved_by(inside_BT)
    if not (unmasked & after_BT).any(1).all():
        return Finding("UNKNOWN", "without the mask the probe sees no leak", _DOCUMENTS, _FIX)
    halves = _two_documents_per_row(batch)
    first_BT = halves.document_numbers_BT == 0
    reached = _losses_moved(
        model, halves, first_BT, ~first_BT, document_mask=True, summed_loss=summed_loss
    )
    if verdict := _judge_loss(reached, "the first half of each row", _DOCUMENTS):
        return verdict
    return Finding(
        "PASS",
        f"{_num_documents(packed)} documents in {size_of(packed)}: no logit outside moves, without "
        f"the mask those after do; the loss of {size_of(batch)} agrees",
        _DOCUMENTS,
    )


def packed_rows(batches: Sequence[Batch], *, most_rows: int) -> Batch:
    """Rows that hold at least two documents; where the data has none, a row halved into two."""
    chosen = [
        _one_row(batch, row)
        for batch in batches
        for row in range(len(batch.row_indices))
        if len(np.unique(batch.document_numbers_BT[row])) > 1
    ][:most_rows]
    if not chosen:
        chosen = [_two_documents_per_row(_one_row(batches[0], 0))]
    return replace(
        chosen[0],
        input_ids_BT=np.concatenate([row.input_ids_BT for row in chosen]),
        target_ids_BT=np.concatenate([row.target_ids_BT for row in chosen]),
        document_numbers_BT=np.concatenate([row.document_numbers_BT for row in chosen]),
        row_indices=tuple(row.row_indices[0] for row in chosen),
    )


@dataclass(frozen=True)
class _Probe:
    """Which logits of a batch move when some of its tokens do."""

    model: Transformer
    batch: Batch
    document_mask: bool
    logits: MaskedLogits

    def moved_by(self, perturbed_BT: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Per position, whether any bit of its logits differs."""
        before, after = self._logits(self.batch), self._logits(self._perturbed(perturbed_BT))
        return (before != after).any(-1).cpu().numpy()

    def _logits(self, batch: Batch) -> Tensor:
        inputs, _, documents = to_device(batch, self.model, document_mask=self.document_mask)
        with torch.no_grad():
            logits_BTV = self.logits(self.model, inputs, documents)
        # NaN differs from itself: it would look like a leak.
        assert bool(torch.isfinite(logits_BTV).all()), "logits that are not finite"
        return logits_BTV

    def _perturbed(self, perturbed_BT: NDArray[np.bool_]) -> Batch:
        return _perturbed(self.batch, perturbed_BT, self.model.architecture.vocab_size)


def _losses_moved(
    model: Transformer,
    batch: Batch,
    perturbed_BT: NDArray[np.bool_],
    hidden_BT: NDArray[np.bool_],
    *,
    document_mask: bool,
    summed_loss: SummedLoss,
) -> tuple[bool, bool]:
    """Whether the loss of the hidden positions moves, and whether that of all others does."""
    changed = _perturbed(batch, perturbed_BT, model.architecture.vocab_size)
    moved: list[bool] = []
    for counted_BT in (hidden_BT, ~hidden_BT):
        losses: list[Tensor] = []
        for side in (batch, changed):
            targets = np.where(counted_BT, batch.target_ids_BT, IGNORED_TARGET)
            tensors = to_device(
                replace(side, target_ids_BT=targets), model, document_mask=document_mask
            )
            losses.append(summed_loss(model, *tensors).detach())
        moved.append(not losses[0].equal(losses[1]))
    return moved[0], moved[1]


def _judge_loss(reached: tuple[bool, bool], what: str, expected: str) -> Finding | None:
    hidden_moved, rest_moved = reached
    if hidden_moved:
        return Finding("FAIL", f"{what} moves the loss of what must not see it", expected, _FIX)
    if not rest_moved:
        return Finding("UNKNOWN", f"{what} moves no loss at all", expected, _FIX)
    return None


def _perturbed(batch: Batch, perturbed_BT: NDArray[np.bool_], vocab_size: int) -> Batch:
    others_BT = (batch.input_ids_BT + 1) % vocab_size
    return replace(batch, input_ids_BT=np.where(perturbed_BT, others_BT, batch.input_ids_BT))


def _mask_of(batch: Batch, places: slice) -> NDArray[np.bool_]:
    mask_BT = np.zeros(batch.input_ids_BT.shape, np.bool_)
    mask_BT[:, places] = True
    return mask_BT


def _one_document_per_row(batch: Batch) -> Batch:
    return replace(batch, document_numbers_BT=np.zeros_like(batch.document_numbers_BT))


def _two_documents_per_row(batch: Batch) -> Batch:
    documents_BT = np.zeros_like(batch.document_numbers_BT)
    documents_BT[:, documents_BT.shape[1] // 2 :] = 1
    return replace(batch, document_numbers_BT=documents_BT)


def _one_row(batch: Batch, row: int) -> Batch:
    return replace(
        batch,
        input_ids_BT=batch.input_ids_BT[row : row + 1],
        target_ids_BT=batch.target_ids_BT[row : row + 1],
        document_numbers_BT=batch.document_numbers_BT[row : row + 1],
        row_indices=batch.row_indices[row : row + 1],
    )


def _longest_but_last(documents_BT: NDArray[np.int64]) -> NDArray[np.bool_]:
    """In each row the positions of the longest document that another one follows."""
    inside_BT = np.zeros(documents_BT.shape, np.bool_)
    for row, documents_T in enumerate(documents_BT):
        numbers, sizes = np.unique(documents_T[documents_T != documents_T[-1]], return_counts=True)
        inside_BT[row] = documents_T == numbers[np.argmax(sizes)]
    return inside_BT


def _num_documents(batch: Batch) -> int:
    return sum(len(np.unique(documents_T)) for documents_T in batch.document_numbers_BT)
