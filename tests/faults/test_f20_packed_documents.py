"""F20: documents that share a row see each other, or a token sees what comes after it.

The probe perturbs one token and compares logits bit by bit: of another document of the row, and of
everything before. Each probe is shown to detect the fault that it is for. That the kernel in use
gives the gradients of this one, mask included, is F26's (test_f32_gates_of_a_run.py, `_mask_off`).
Several ranks do not exist yet.
"""

import numpy as np
import pytest
import torch
from tests.run_data import RunData
from tests.unit.train.batch_fixture import VOCAB_SIZE, random_batch, seeing, tiny_model
from torch import Tensor

from apr.model.attention import Attend, Way, flash, pieces, plain
from apr.model.init import initialize
from apr.model.transformer import Transformer
from apr.train.batches import IGNORED_TARGET, Batch
from apr.train.inputs import open_inputs
from apr.train.loss import summed_loss
from apr.train.step import to_device

# Three documents in a row of 16: A has 6 tokens, B one, C the rest.
DOCUMENTS = [0] * 6 + [1] + [2] * 9
LENGTH = len(DOCUMENTS)

DTYPES = [torch.float32, torch.bfloat16]


def packed_row() -> Batch:
    batch = random_batch(rows=1, length=LENGTH)
    documents = np.array([DOCUMENTS], np.int64)
    return Batch(batch.input_ids_BT, batch.target_ids_BT, documents, batch.row_indices)


def perturbed(ids_BT: Tensor, at: int) -> Tensor:
    changed = ids_BT.clone()
    changed[0, at] = (changed[0, at] + 1) % VOCAB_SIZE
    return changed


def moved(
    model: Transformer, ids_BT: Tensor, at: int, documents_BT: Tensor | None = None
) -> list[bool]:
    """At which positions the logits change at all when the token `at` does."""
    before, after = (
        model(ids, documents_BT=documents_BT)[0] for ids in (ids_BT, perturbed(ids_BT, at))
    )
    return [not one.equal(other) for one, other in zip(before, after, strict=True)]


def model_in(dtype: torch.dtype, attention: Way) -> Transformer:
    model = tiny_model()
    model.compute_dtype, model.attention = dtype, attention
    return model


@pytest.mark.parametrize("attention", [plain, pieces, flash])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("at", range(LENGTH))
def test_a_token_moves_its_own_document_from_itself_on_and_nothing_else(
    at: int, dtype: torch.dtype, attention: Way
) -> None:
    batch = packed_row()
    documents, ids = (
        torch.from_numpy(array) for array in (batch.document_numbers_BT, batch.input_ids_BT)
    )
    expected = [place >= at and DOCUMENTS[place] == DOCUMENTS[at] for place in range(LENGTH)]
    assert moved(model_in(dtype, attention), ids, at, documents) == expected


@pytest.mark.parametrize("attention", [plain, pieces, flash])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("at", range(LENGTH))
def test_with_the_mask_switched_off_the_probe_detects_the_leak(
    at: int, dtype: torch.dtype, attention: Way
) -> None:
    ids = torch.from_numpy(packed_row().input_ids_BT)
    # Into every later document, and still nothing before the token itself.
    assert moved(model_in(dtype, attention), ids, at) == [place >= at for place in range(LENGTH)]


def test_a_mask_that_looks_one_token_ahead_is_detected() -> None:
    ahead = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril(1).unsqueeze(0)
    ids = torch.from_numpy(packed_row().input_ids_BT)
    assert moved(seeing(tiny_model(), ahead), ids, 5)[:5] != [False] * 5


def loss_of_the_rest(batch: Batch, *, with_mask: bool, first_id_changed: bool) -> Tensor:
    """The training loss over all targets but those of document A, as a step computes it."""
    ids, targets = batch.input_ids_BT.copy(), batch.target_ids_BT.copy()
    targets[batch.document_numbers_BT == 0] = IGNORED_TARGET
    if first_id_changed:
        ids[0, 0] = (ids[0, 0] + 1) % VOCAB_SIZE
    model = tiny_model()
    changed = Batch(ids, targets, batch.document_numbers_BT, batch.row_indices)
    return summed_loss(model, *to_device(changed, model, document_mask=with_mask))


@pytest.mark.parametrize("with_mask", [True, False])
def test_the_option_reaches_the_loss(with_mask: bool) -> None:
    losses = [
        loss_of_the_rest(packed_row(), with_mask=with_mask, first_id_changed=changed)
        for changed in (False, True)
    ]
    assert losses[0].equal(losses[1]) == with_mask


def _every_row_one_document(x_BTD: Tensor, _documents: Tensor | None) -> Attend:
    return plain(x_BTD, None)


@pytest.mark.parametrize("plant", [None, _every_row_one_document])
def test_documents_of_real_rows_do_not_see_each_other(
    run_data: RunData,
    tmp_path_factory: pytest.TempPathFactory,
    plant: Way | None,
) -> None:
    config = run_data.config(tmp_path_factory.mktemp("run"), seq_length=512, batch_size=1)
    inputs = open_inputs(config)
    (rows,) = inputs.data.train.sources
    for row in range(rows.num_rows):
        batch = rows.batch(np.array([row]), batch_size=1)
        documents = torch.from_numpy(batch.document_numbers_BT)
        border = int((documents[0] == documents[0, 0]).sum())
        if 10 < border < 500:
            break
    else:
        pytest.fail("no row with two documents")
    model = Transformer(inputs.architecture)
    initialize(model, seed=1)
    ids = torch.from_numpy(batch.input_ids_BT)
    model.attention = plant or plain
    leaks = moved(model, ids, border - 3, documents)
    assert any(leaks[border - 3 : border])
    assert any(leaks[border:]) == (plant is not None)
    assert not any(leaks[: border - 3])
