"""The table of names, against gguf-py's."""

import pytest
from tests.gguf_models import FAMILIES, gguf_name

from apr.convert.gguf import names


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_has_gguf_pys_name(family: str) -> None:
    architecture = FAMILIES[family]
    listed = list(architecture.parameter_shapes())
    assert listed
    for name in listed:
        assert names.to_gguf(name) == gguf_name(name, architecture.model_type)
        assert names.to_hf(gguf_name(name, architecture.model_type)) == name


@pytest.mark.parametrize(
    "name",
    [
        "blk.00.attn_q.weight",
        "blk.-1.attn_q.weight",
        "blk.\u0661.attn_q.weight",
        "blk.0.attn_qkv.weight",
        "blk.0.attn_q.weight.1",
        "rope_freqs.weight",
        "model.norm.weight",
        "",
    ],
)
def test_what_is_not_in_the_table_has_no_name(name: str) -> None:
    assert names.to_hf(name) is None


def test_hf_names_outside_the_table_have_none_either() -> None:
    assert names.to_gguf("model.layers.0.self_attn.qkv_proj.weight") is None
    assert names.to_gguf("model.layers.01.self_attn.q_proj.weight") is None
