"""What is counted of a forward pass against what autograd saves of one."""

import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from apr.architecture import Architecture, preset
from apr.model.init import initialize
from apr.model.transformer import Transformer
from apr.train.acceleration import Acceleration
from apr.train.attention_choice import WAYS
from apr.train.loss import summed_loss
from apr.train.saved_activations import saved_for_backward
from apr.train.step import SummedLoss
from apr.train.workload import Precision, Workload

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


def small(model_type: Any) -> Architecture:
    tiny = preset("tiny", tokenizer_vocab_size=96)
    return replace(tiny, model_type=model_type, num_hidden_layers=3, intermediate_size=200)


def saved_bytes(
    shape: Architecture,
    precision: Precision,
    *,
    batch: int,
    positions: int,
    attention: str,
    loss: SummedLoss = summed_loss,
) -> int:
    """What autograd holds after a forward pass of the training loss, parameters left out."""
    model = Transformer(shape)
    initialize(model, seed=0)
    model.compute_dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model.attention = WAYS[attention]
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    held: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage
        return tensor

    ids = torch.from_numpy(np.random.default_rng(0).integers(96, size=(batch, positions)))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss(model, ids, ids, torch.zeros_like(ids))
    return sum(storage.nbytes() for storage in held.values())


@pytest.mark.parametrize("positions", [80, 300])
@pytest.mark.parametrize("attention", ["plain", "pieces", "flash"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3"])
def test_what_is_counted_is_what_autograd_saves(
    model_type: str, precision: Precision, attention: str, positions: int
) -> None:
    shape = small(model_type)
    work = Workload(shape, batch_size=3, sequence_length=positions, attention=attention)
    counted = sum(saved_for_backward(work, precision).values())
    item = 2 if precision == "bf16" else 4
    gradients_of_head_and_states = shape.hidden_size * (
        4 * shape.vocab_size + item * work.micro_batch_tokens
    )
    found = saved_bytes(shape, precision, batch=3, positions=positions, attention=attention)
    assert counted + gradients_of_head_and_states == pytest.approx(found, rel=0.01)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
def test_what_is_counted_of_compiled_blocks_is_a_little_more(
    model_type: str, precision: Precision
) -> None:
    """And less than eager kernels save, which is what an undecided run is counted as."""
    shape = small(model_type)
    work = Workload(shape, batch_size=3, sequence_length=80, attention="flash", compiled=True)
    work = replace(work, on_cpu=False)
    counted, eager = (
        sum(saved_for_backward(each, precision).values())
        for each in (work, replace(work, compiled=None))
    )
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    compiled = Acceleration(torch.device("cpu"), dtype, compiled=True, notices=())
    found = saved_bytes(
        shape,
        precision,
        batch=3,
        positions=80,
        attention="flash",
        loss=compiled.loss_function(),
    )
    item = 2 if precision == "bf16" else 4
    found -= shape.hidden_size * (4 * shape.vocab_size + item * work.micro_batch_tokens)
    assert 0.7 * counted < found <= counted < eager
