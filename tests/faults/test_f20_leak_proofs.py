"""F20: the leak proofs of `apr selftest`, each against a mask with a planted leak.

The functions that mask are the seam: a proof is given broken ones and must say FAIL; where it could
not have seen a leak it must say UNKNOWN.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.train.batch_fixture import random_batch, seeing, tiny_model
from torch import Tensor

from apr.model.attention import Way, causal_mask, document_mask, flash, pieces, plain
from apr.model.transformer import Transformer
from apr.train.batches import Batch
from apr.train.gates import Finding, judge
from apr.train.loss import masked_logits, summed_loss
from apr.train.selftest.leaks import check_causal_leak, check_document_leak, packed_rows

DTYPES = [torch.float32, torch.bfloat16]
# Three documents in a row of 16; in another two.
DOCUMENTS = np.array([[0] * 6 + [1] + [2] * 9, [3] * 12 + [4] * 4], np.int64)

MaskOf = Callable[[Tensor], Tensor]


def packed() -> Batch:
    batch = random_batch(rows=2)
    return Batch(batch.input_ids_BT, batch.target_ids_BT, DOCUMENTS, batch.row_indices)


def masked_by(mask_of: MaskOf) -> Callable[..., Tensor]:
    """Logits whose mask is another one, where documents are masked at all."""

    def logits(model: Transformer, ids_BT: Tensor, documents_BT: Tensor | None) -> Tensor:
        if documents_BT is None:
            return masked_logits(model, ids_BT, None)
        return seeing(model, mask_of(documents_BT))(ids_BT)

    return logits


def loss_masked_by(mask_of: MaskOf) -> Callable[..., Tensor]:
    """The training loss with another mask."""

    def loss(
        model: Transformer, ids_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor
    ) -> Tensor:
        planted = seeing(model, mask_of(documents_BT))
        return summed_loss(planted, ids_BT, targets_BT, documents_BT)

    return loss


def model_in(dtype: torch.dtype, way: Way = plain) -> Transformer:
    model = tiny_model()
    model.compute_dtype, model.attention = dtype, way
    return model


def causal(dtype: torch.dtype = torch.float32, way: Way = plain, **planted: Any) -> Finding:
    functions: dict[str, Any] = {"logits": masked_logits, "summed_loss": summed_loss}
    batch = random_batch()
    model = model_in(dtype, way)
    return check_causal_leak(model, batch, batch, document_mask=True, **functions | planted)


def documents(dtype: torch.dtype = torch.float32, way: Way = plain, **planted: Any) -> Finding:
    functions: dict[str, Any] = {"logits": masked_logits, "summed_loss": summed_loss}
    model = model_in(dtype, way)
    return check_document_leak(model, packed(), random_batch(), **functions | planted)


@pytest.mark.parametrize("way", [plain, pieces, flash])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sound_masks_pass(dtype: torch.dtype, way: Way) -> None:
    for finding in (causal(dtype, way), documents(dtype, way)):
        assert finding.verdict == "PASS", finding.found
    assert "7 places" in causal(dtype, way).found
    assert "5 documents in 2 rows of 16 tokens" in documents(dtype, way).found


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_documents_that_a_kernel_takes_for_one_fail(dtype: torch.dtype) -> None:
    assert documents(dtype, lambda x_BTD, _documents: flash(x_BTD, None)).verdict == "FAIL"


def _no_mask(documents_BT: Tensor) -> Tensor:
    return torch.ones_like(document_mask(documents_BT))


def _one_ahead(documents_BT: Tensor) -> Tensor:
    return document_mask(documents_BT) | torch.eye(documents_BT.shape[1]).roll(1, 1).bool()


def _one_document(documents_BT: Tensor) -> Tensor:
    return causal_mask(0, documents_BT.shape[1], device=documents_BT.device)


def _one_position_before(documents_BT: Tensor) -> Tensor:
    """The first token of a document sees the last one of the document before."""
    return document_mask(documents_BT) | torch.eye(documents_BT.shape[1]).roll(1, 0).tril().bool()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mask_of", [_no_mask, _one_ahead])
def test_a_prediction_that_sees_a_later_token_fails(mask_of: MaskOf, dtype: torch.dtype) -> None:
    assert causal(dtype, logits=masked_by(mask_of)).verdict == "FAIL"
    assert causal(dtype, summed_loss=loss_masked_by(mask_of)).verdict == "FAIL"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mask_of", [_no_mask, _one_document, _one_position_before])
def test_a_document_that_sees_another_fails(mask_of: MaskOf, dtype: torch.dtype) -> None:
    assert documents(dtype, logits=masked_by(mask_of)).verdict == "FAIL"
    assert documents(dtype, summed_loss=loss_masked_by(mask_of)).verdict == "FAIL"


def _itself_only(documents_BT: Tensor) -> Tensor:
    return torch.eye(documents_BT.shape[1]).bool().expand_as(document_mask(documents_BT))


def _blind(model: Transformer, ids_BT: Tensor, _documents: Tensor | None) -> Tensor:
    return masked_logits(model, torch.zeros_like(ids_BT), None)


def _numb_at_the_end(model: Transformer, ids_BT: Tensor, documents: Tensor | None) -> Tensor:
    logits_BTV = masked_logits(model, ids_BT, documents)
    logits_BTV[:, -1] = 0.0
    return logits_BTV


def test_a_probe_that_sees_nothing_has_proven_nothing() -> None:
    assert causal(logits=_numb_at_the_end).verdict == "UNKNOWN"
    assert causal(logits=masked_by(_itself_only)).verdict == "UNKNOWN"
    assert causal(logits=_blind).verdict == "UNKNOWN"
    assert documents(logits=_blind).verdict == "UNKNOWN"

    def still_masked(model: Transformer, ids_BT: Tensor, _none: Tensor | None) -> Tensor:
        return masked_logits(model, ids_BT, torch.from_numpy(DOCUMENTS))

    finding = documents(unmasked_logits=still_masked)
    assert (finding.verdict, finding.found) == (
        "UNKNOWN",
        "without the mask the probe sees no leak",
    )

    def no_loss(*arguments: Any) -> Tensor:
        return summed_loss(*arguments) * 0.0

    assert causal(summed_loss=no_loss).verdict == "UNKNOWN"
    assert documents(summed_loss=no_loss).verdict == "UNKNOWN"


def test_logits_that_are_not_finite_are_no_leak_and_no_success() -> None:
    def nan(*arguments: Any) -> Tensor:
        return masked_logits(*arguments) * float("nan")

    gate = judge("selftest.causal-leak", lambda: causal(logits=nan))
    assert (gate.verdict, gate.upstream_id) == ("FAIL", None)
    assert "not finite" in gate.found


def test_rows_of_one_token_compare_nothing() -> None:
    one = random_batch(length=1)
    functions: dict[str, Any] = {"logits": masked_logits, "summed_loss": summed_loss}
    model = tiny_model()
    assert check_causal_leak(model, one, one, document_mask=True, **functions).verdict == "UNKNOWN"
    assert check_document_leak(model, one, one, **functions).verdict == "UNKNOWN"


def test_rows_that_hold_several_documents_are_preferred_and_otherwise_made() -> None:
    plain = random_batch(rows=3)
    chosen = packed_rows([plain, packed()], most_rows=2)
    assert np.array_equal(chosen.document_numbers_BT, DOCUMENTS)
    made = packed_rows([plain], most_rows=2)
    assert made.document_numbers_BT.tolist() == [[0] * 8 + [1] * 8]
    assert np.array_equal(made.input_ids_BT, plain.input_ids_BT[:1])
