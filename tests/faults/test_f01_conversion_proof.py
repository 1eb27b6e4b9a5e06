"""F01: faults planted between a source and what is written of it are named by the proof."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.source_models import (
    ARCHITECTURES,
    LLAMA,
    QWEN2,
    Fault,
    adjacent_rows,
    source,
    swapped,
    with_array,
    with_field,
)
from torch import Tensor

from apr.architecture import Architecture
from apr.convert.source import Source
from apr.errors import Refusal
from apr.jobs.prove_source import SourceProof, prove_source
from apr.model.attention import Attend
from apr.model.transformer import Attention, Block

_LAYER = "model.layers.1."


def proved(good: Source, fault: Fault, block: type[Block] = Block) -> SourceProof:
    bad = fault(good)
    return prove_source(good, bad.architecture, bad.tensors, ask_transformers=False, block=block)


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_a_sound_conversion_is_proved(architecture: Architecture) -> None:
    proof = proved(source(architecture), lambda same: same).reference
    assert proof.num_tokens == 512
    assert proof.num_layers == 3
    assert proof.max_relative_error < 1e-5
    assert proof.loss_nats == pytest.approx(proof.reference_loss_nats, abs=1e-4)
    assert proof.loss_nats > math.log(97) / 2


_FAULTS = [
    pytest.param(
        LLAMA,
        with_field(rope_theta=10_000.0),
        "layer 0, queries after rotary",
        "rope_theta is 10000, the source says 1e+06",
        id="rope-theta",
    ),
    pytest.param(
        LLAMA,
        with_field(rms_norm_eps=1e-3),
        "layer 0, input norm",
        "rms_norm_eps is 0.001, the source says 1e-06",
        id="rms-norm-eps",
    ),
    pytest.param(
        ARCHITECTURES["llama-tied-scaled"],
        with_field(rope_scaling=None),
        "layer 0, queries after rotary",
        "rope_scaling is None",
        id="scaling-lost",
    ),
    pytest.param(
        LLAMA,
        with_array(f"{_LAYER}self_attn.q_proj.weight", adjacent_rows(4)),
        "layer 1, queries",
        f"{_LAYER}self_attn.q_proj.weight is not the source's",
        id="query-rows-permuted",
    ),
    pytest.param(
        LLAMA,
        with_array(f"{_LAYER}self_attn.k_proj.weight", adjacent_rows(2)),
        "layer 1, keys",
        f"{_LAYER}self_attn.k_proj.weight is not the source's",
        id="key-rows-permuted",
    ),
    pytest.param(
        QWEN2,
        with_array(f"{_LAYER}self_attn.q_proj.bias", np.zeros_like),
        "layer 1, queries",
        f"{_LAYER}self_attn.q_proj.bias is not the source's",
        id="bias-zeroed",
    ),
    pytest.param(
        QWEN2,
        with_array(f"{_LAYER}self_attn.v_proj.bias", np.zeros_like),
        "layer 1, values",
        f"{_LAYER}self_attn.v_proj.bias is not the source's",
        id="value-bias-zeroed",
    ),
    pytest.param(
        LLAMA,
        swapped("model.layers.0.mlp.up_proj.weight", "model.layers.2.mlp.up_proj.weight"),
        "layer 0, feed-forward inside",
        "model.layers.0.mlp.up_proj.weight is not the source's",
        id="layers-swapped",
    ),
    pytest.param(
        LLAMA,
        swapped(f"{_LAYER}mlp.gate_proj.weight", f"{_LAYER}mlp.up_proj.weight"),
        "layer 1, feed-forward inside",
        f"{_LAYER}mlp.gate_proj.weight is not the source's",
        id="gate-and-up-swapped",
    ),
    pytest.param(
        LLAMA,
        swapped(f"{_LAYER}input_layernorm.weight", f"{_LAYER}post_attention_layernorm.weight"),
        "layer 1, input norm",
        f"{_LAYER}input_layernorm.weight is not the source's",
        id="norms-swapped",
    ),
    pytest.param(
        LLAMA,
        with_array(f"{_LAYER}self_attn.o_proj.weight", np.transpose),
        "layer 1, attention output",
        f"{_LAYER}self_attn.o_proj.weight is not the source's",
        id="square-transposed",
    ),
    pytest.param(
        QWEN2,
        with_array("lm_head.weight", lambda head: head + np.float32(1e-2)),
        "logits",
        "lm_head.weight is not the source's",
        id="head-changed",
    ),
    pytest.param(
        QWEN2,
        swapped("lm_head.weight", "model.embed_tokens.weight"),
        "embedding",
        "model.embed_tokens.weight is not the source's",
        id="ends-swapped",
    ),
    pytest.param(
        LLAMA,
        with_array("model.embed_tokens.weight", lambda rows: np.roll(rows, 1, axis=0)),
        "embedding",
        "model.embed_tokens.weight is not the source's",
        id="rows-shifted-by-one",
    ),
    pytest.param(
        ARCHITECTURES["qwen3-tied"],
        with_array(f"{_LAYER}self_attn.k_norm.weight", np.ones_like),
        "layer 1, keys",
        f"{_LAYER}self_attn.k_norm.weight is not the source's",
        id="key-norm-lost",
    ),
    pytest.param(
        LLAMA,
        with_array("model.norm.weight", np.ones_like),
        "final norm",
        "model.norm.weight is not the source's",
        id="final-norm-lost",
    ),
]


@pytest.mark.parametrize(("architecture", "fault", "where", "cause"), _FAULTS)
def test_a_planted_fault_is_named(
    architecture: Architecture, fault: Fault, where: str, cause: str
) -> None:
    with pytest.raises(Refusal) as refused:
        proved(source(architecture), fault)
    assert refused.value.id == "proof.differs"
    assert refused.value.where == where
    assert cause in refused.value.found


def test_a_tie_that_breaks_is_named() -> None:
    """The embedding is written as it is, and a head that drifted from it beside it."""

    def untie(good: Source) -> Source:
        embedding = good.tensors["model.embed_tokens.weight"]
        drifted = with_array("model.embed_tokens.weight", lambda rows: rows + np.float32(1e-2))
        head = replace(drifted(good).tensors[embedding.name], name="lm_head.weight")
        architecture = replace(good.architecture, tie_word_embeddings=False)
        tensors = {**good.tensors, "lm_head.weight": head}
        return replace(good, architecture=architecture, tensors=tensors)

    with pytest.raises(Refusal) as refused:
        proved(source(LLAMA), untie)
    assert (refused.value.id, refused.value.where) == ("proof.differs", "logits")
    assert "only the conversion has lm_head.weight" in refused.value.found


class _AdjacentPairs(Block):
    def __init__(self, architecture: Architecture, layer: int) -> None:
        super().__init__(architecture, layer)
        self.self_attn = _TurnsAdjacentPairs(architecture, layer)


class _TurnsAdjacentPairs(Attention):
    def turn(self, x_BHTE: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        cos, sin = rotary
        first, second = x_BHTE[..., 0::2], x_BHTE[..., 1::2]
        turned = (first * cos - second * sin, second * cos + first * sin)
        return torch.stack(turned, -1).flatten(-2)


class _OtherScale(Block):
    def __init__(self, architecture: Architecture, layer: int) -> None:
        super().__init__(architecture, layer)
        self.self_attn = _ScalesByWidth(architecture, layer)


class _ScalesByWidth(Attention):
    def mix(self, q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, attend: Attend) -> Tensor:
        return super().mix(q_BHTE * 0.5, k_BKSE, v_BKSE, attend)


@pytest.mark.parametrize(
    ("block", "where"),
    [(_AdjacentPairs, "layer 0, queries after rotary"), (_OtherScale, "layer 0, attention")],
)
def test_a_computation_that_differs_is_named(block: type[Block], where: str) -> None:
    with pytest.raises(Refusal) as refused:
        proved(source(LLAMA), lambda same: same, block)
    assert (refused.value.id, refused.value.where) == ("proof.differs", where)
    assert "the computation itself differs" in refused.value.found


def test_a_field_that_changes_no_number_is_refused_too() -> None:
    """With a stream this large the norm's eps is invisible, and still it is another model."""
    good = source(LLAMA)
    large = with_array("model.embed_tokens.weight", lambda rows: rows * np.float32(1e6))
    good = replace(good, tensors=large(good).tensors, stored=large(good).tensors)
    with pytest.raises(Refusal) as refused:
        proved(good, with_field(rms_norm_eps=2e-6))
    assert refused.value.id == "proof.config-differs"
    assert "rms_norm_eps" in refused.value.found


def test_a_value_that_is_no_number_is_a_difference() -> None:
    def poisoned(rows: np.ndarray) -> np.ndarray:
        rows = rows.copy()
        rows[0, 0] = np.nan
        return rows

    with pytest.raises(Refusal) as refused:
        proved(source(LLAMA), with_array(f"{_LAYER}mlp.down_proj.weight", poisoned))
    assert refused.value.where == "layer 1, feed-forward"
