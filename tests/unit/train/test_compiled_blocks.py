"""One compiled function serves every block, in training and in validation.

Traced by the compiler's front end alone: code for the graphs is not made here.
"""

from dataclasses import replace

import pytest
import torch
from tests.unit.train.batch_fixture import random_batch, tiny_model
from tests.varlen_kernel import varlen_on_cpu
from torch._dynamo.testing import CompileCounterWithBackend

from apr.model.switches import in_plain_fp32
from apr.model.transformer import Block
from apr.train.acceleration import Acceleration
from apr.train.gradients_gate import measure_gradients
from apr.train.loss import summed_loss

# The compiler's front end looks into what comes into a block, and torch is told to raise then.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")

COMPILED = Acceleration(torch.device("cpu"), torch.float32, True, (), "pieces")


def test_all_blocks_are_served_by_one_compilation(counter: CompileCounterWithBackend) -> None:
    model, batch = tiny_model(), random_batch()
    assert len(model.model.layers) > 1
    COMPILED.apply_to(model)
    ids, targets, documents = (
        torch.from_numpy(each)
        for each in (batch.input_ids_BT, batch.target_ids_BT, batch.document_numbers_BT)
    )
    loss = COMPILED.loss_function()
    head = 1
    loss(model, ids, targets, documents).sum().backward()
    assert counter.frame_count == 1 + head
    with torch.no_grad():
        validated = loss(model, ids, targets, documents)
    assert counter.frame_count == 1 + head
    torch.testing.assert_close(validated, summed_loss(model, ids, targets, documents))


def test_gradients_are_those_of_blocks_that_nobody_compiled(
    counter: CompileCounterWithBackend,
) -> None:
    model, batch = tiny_model(), random_batch()
    COMPILED.apply_to(model)
    ours, eager = (
        measure_gradients(model, batch, loss, document_mask=True)
        for loss in (COMPILED.loss_function(), summed_loss)
    )
    assert counter.frame_count > 0
    for name, gradient in eager.tensors.items():
        torch.testing.assert_close(ours.tensors[name], gradient, rtol=1e-4, atol=1e-6)


def test_the_reference_of_a_compiled_run_is_not_compiled(
    counter: CompileCounterWithBackend,
) -> None:
    """Afterwards the model computes as it was written; a compiled one is used in its loss alone."""
    model, batch = tiny_model(), random_batch()
    COMPILED.apply_to(model)
    measure_gradients(model, batch, COMPILED.loss_function(), document_mask=True)
    assert model.model.compute_block is Block.compute
    before = counter.frame_count
    with in_plain_fp32(model):
        measure_gradients(model, batch, summed_loss, document_mask=True)
    assert counter.frame_count == before


@pytest.mark.parametrize("marked", [True, False])
def test_documents_end_to_end_are_served_by_one_compilation_whatever_their_number(
    counter: CompileCounterWithBackend, monkeypatch: pytest.MonkeyPatch, marked: bool
) -> None:
    """Borders whose number is not said to change are the planted fault."""
    if not marked:
        monkeypatch.setattr("torch._dynamo.mark_dynamic", lambda _borders, _dimension: None)
    model, batch = tiny_model(), random_batch()
    acceleration = replace(COMPILED, attention="varlen")
    acceleration.apply_to(model)
    loss = acceleration.loss_function()
    ids, targets = (torch.from_numpy(each) for each in (batch.input_ids_BT, batch.target_ids_BT))
    compilations: list[int] = []
    with varlen_on_cpu():
        for every in (3, 5, 16):
            documents = (torch.arange(16) // every).expand(4, 16)
            found = loss(model, ids, targets, documents)
            found.sum().backward()
            compilations.append(counter.frame_count)
            torch.testing.assert_close(found, summed_loss(model, ids, targets, documents))
    assert (compilations[0] == compilations[-1]) == marked
