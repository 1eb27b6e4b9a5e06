"""F26: attention that is not the defined one, in every way that a CPU has, at the gate of a run.

The gate is given a model whose attention has a fault in it; the same way without the fault passes.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.unit.train.batch_fixture import random_batch, tiny_model
from tests.varlen_kernel import varlen_on_cpu
from torch import Tensor

from apr.model.attention import Attend, Way, document_mask, flash, masked, pieces, plain, varlen
from apr.train.attention_check import compare_attention
from apr.train.batches import Batch
from apr.train.gates import Gate, judge
from apr.train.gradients_gate import check_gradients
from apr.train.loss import summed_loss

WAYS = [pieces, flash, varlen]
DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(scope="module", autouse=True)
def _kernel() -> Iterator[None]:
    with varlen_on_cpu():
        yield


def long_rows() -> Batch:
    """Three rows of a few documents, long enough that one position is lost in a sum over all."""
    batch = random_batch(rows=3, length=192)
    numbers = np.arange(3 * 192).reshape(3, 192) // 64
    return replace(batch, document_numbers_BT=numbers)


def gate(way: Way, dtype: torch.dtype) -> Gate:
    """The verdict of preflight.gradients on a run whose attention this is."""
    model = tiny_model()
    model.compute_dtype, model.attention = dtype, way
    return judge(
        "preflight.gradients",
        lambda: check_gradients(
            model,
            long_rows(),
            accelerated_loss=summed_loss,
            document_mask=True,
        ),
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_sound_attention_passes(way: Way, dtype: torch.dtype) -> None:
    found = gate(way, dtype)
    assert found.verdict == "PASS", found.found
    assert "of plain fp32 at every position" in found.found


def _mask_off(way: Way) -> Way:
    return lambda x_BTD, _documents: way(x_BTD, None)


def _last_row_dropped(way: Way) -> Way:
    def dropping(x_BTD: Tensor, documents_BT: Tensor | None) -> Attend:
        attend = way(x_BTD, documents_BT)

        def attend_all_but_one(*heads: Tensor) -> Tensor:
            y_BHTE = attend(*heads)
            return torch.cat((y_BHTE[:-1], 0.0 * y_BHTE[-1:]))

        return attend_all_but_one

    return dropping


def _border_one_late(way: Way) -> Way:
    """The first token of each document but the first of a row is counted to the one before."""

    def late(x_BTD: Tensor, documents_BT: Tensor | None) -> Attend:
        assert documents_BT is not None
        shifted = torch.cat((documents_BT[:, :1], documents_BT[:, :-1]), dim=1)
        return way(x_BTD, shifted)

    return late


def _keys_of_the_next_head(way: Way) -> Way:
    def turned(x_BTD: Tensor, documents_BT: Tensor | None) -> Attend:
        attend = way(x_BTD, documents_BT)
        return lambda q, k, v: attend(q, k.roll(1, 1), v)

    return turned


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "planted", [_mask_off, _last_row_dropped, _border_one_late, _keys_of_the_next_head]
)
def test_attention_that_is_not_the_defined_one_fails(
    planted: Callable[[Way], Way], way: Way, dtype: torch.dtype
) -> None:
    found = gate(planted(way), dtype)
    assert (found.verdict, found.id) == ("FAIL", "preflight.gradients"), found.found
    assert "of plain fp32 at every position" in found.found


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_position_that_sees_one_too_much_fails(dtype: torch.dtype) -> None:
    """Late in a row, where a single key weighs least."""

    def leaky(_stream: Tensor, documents_BT: Tensor | None) -> Attend:
        assert documents_BT is not None
        mask_BTS = document_mask(documents_BT)
        mask_BTS[:, 190, 191] = True
        return masked(mask_BTS)

    assert gate(leaky, dtype).verdict == "FAIL"


def test_a_gradient_stretched_by_a_hundredth_fails() -> None:
    def stretched(x_BTD: Tensor, documents_BT: Tensor | None) -> Attend:
        attend = flash(x_BTD, documents_BT)
        return lambda q, k, v: attend(q, 1.01 * k - 0.01 * k.detach(), v)

    assert gate(stretched, torch.float32).verdict == "FAIL"


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_the_first_and_the_last_row_are_always_compared(rows: int) -> None:
    batch = random_batch(rows=rows, length=8)
    model = tiny_model()
    model.attention = flash
    assert compare_attention(model, batch, document_mask=False).is_close
    for at in {0, rows - 1}:

        def without(x_BTD: Tensor, documents_BT: Tensor | None, at: int = at) -> Attend:
            attend = plain(x_BTD, documents_BT)
            kept = (torch.arange(rows) != at).view(-1, 1, 1, 1)
            return lambda *heads: attend(*heads) * kept

        model.attention = without
        assert not compare_attention(model, batch, document_mask=False).is_close
