"""Named keys, their order, and the table between Hugging Face's spelling and the container's."""

import json
from typing import Any

import pytest
from tests.container_models import LLAMA, QWEN2, UNTIED

from apr.architecture import PRESET_NAMES, preset
from apr.container.metadata import (
    architecture_from_metadata,
    claims_a_model,
    metadata_from_architecture,
)
from apr.container.metadata_json import ALIASES
from apr.container.named_keys import Metadata
from apr.errors import Refusal

ORDER = [
    "model_type",
    "name",
    "description",
    "author",
    "license",
    "data_source",
    "data_license",
    "version",
    "source",
    "original_format",
    "created_at",
    "total_size",
    "param_count",
    "quantization",
    "sharding",
    "chat_template",
    "chat_format",
    "special_tokens",
    "architecture",
    "hf_architecture",
    "hf_model_type",
    "hidden_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "vocab_size",
    "intermediate_size",
    "max_position_embeddings",
    "rope_theta",
    "rope_type",
    "rms_norm_eps",
    "head_dim",
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
]


def test_the_named_keys_and_their_order() -> None:
    assert list(Metadata.model_fields) == ORDER


def test_unset_metadata() -> None:
    assert Metadata().encode() == (
        b'{"model_type":"","license":null,"data_source":null,"data_license":null,'
        b'"total_size":0,"param_count":0}'
    )


def test_everything_set_is_written_in_order() -> None:
    values: dict[str, Any] = {
        "quantization": {"quant_type": "q4", "bits": 4, "block_size": None, "symmetric": True},
        "sharding": {"shard_count": 1, "shard_index": 0, "total_size": 5, "pattern": None},
        "special_tokens": {
            "bos_token": None,
            "eos_token": "e",
            "unk_token": None,
            "pad_token": None,
            "im_start_token": None,
            "im_end_token": None,
        },
        "rope_theta": 1e-45,
        "rms_norm_eps": 1e-6,
    }
    for key, field in Metadata.model_fields.items():
        if key not in values:
            values[key] = "text" if "str" in str(field.annotation) else 7
    metadata = Metadata.model_validate(dict(reversed(values.items())) | {"z": [None], "a": {}})
    written = json.loads(metadata.encode())
    assert list(written) == [*ORDER, "a", "z"]
    assert written == values | {"z": [None], "a": {}}
    assert Metadata.from_object(written, where="x") == metadata


def test_text_is_written_as_utf8_without_spaces() -> None:
    metadata = Metadata(name="\N{SNOWMAN}").with_free({"a": [1, {"b": 2}]})
    assert '"name":"\N{SNOWMAN}"'.encode() in metadata.encode()
    assert b'"a":[1,{"b":2}]' in metadata.encode()


def test_free_keys_are_a_copy() -> None:
    metadata = Metadata().with_free({"a": 1})
    metadata.free["b"] = 2
    assert metadata.free == {"a": 1}


@pytest.mark.parametrize("free", [{"model_dump": 1}, {"__class__": 1}, {"free": 1}, {"": 1}])
def test_free_keys_named_like_our_code(free: dict[str, Any]) -> None:
    metadata = Metadata.from_object(free, where="x")
    assert metadata.free == free
    assert Metadata.from_object(json.loads(metadata.encode()), where="x") == metadata


def test_every_alias_is_moved() -> None:
    for name, aliases in ALIASES.items():
        value = 1e-5 if name == "rms_norm_eps" else 3
        for alias in aliases:
            metadata = Metadata.from_object({alias: value}, where="x")
            assert getattr(metadata, name) == value
            assert metadata.free == {}


@pytest.mark.parametrize("architecture", [LLAMA, QWEN2, UNTIED])
def test_an_architecture_comes_back(architecture: Any) -> None:
    metadata = metadata_from_architecture(
        architecture, num_parameters=architecture.num_parameters, free={"apr.note": "n"}
    )
    names = architecture.parameter_shapes()
    again = Metadata.from_object(json.loads(metadata.encode()), where="x")
    assert again == metadata
    assert architecture_from_metadata(again, names, "x") == architecture
    assert again.free == {"apr.note": "n", "tied_embeddings": architecture.tie_word_embeddings}


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_every_preset_comes_back(name: str) -> None:
    architecture = preset(name, tokenizer_vocab_size=4096)
    metadata = metadata_from_architecture(
        architecture, num_parameters=architecture.num_parameters, free={}
    )
    names = architecture.parameter_shapes()
    assert architecture_from_metadata(metadata, names, "x") == architecture


def test_how_qwen2_is_spelled() -> None:
    qwen = preset("qwen2-0.5b", tokenizer_vocab_size=0)
    metadata = metadata_from_architecture(qwen, num_parameters=qwen.num_parameters, free={})
    written = json.loads(metadata.encode())
    assert written == {
        "model_type": "qwen2",
        "license": None,
        "data_source": None,
        "data_license": None,
        "total_size": 0,
        "param_count": 494_032_768,
        "architecture": "qwen2",
        "hf_architecture": "Qwen2ForCausalLM",
        "hf_model_type": "qwen2",
        "hidden_size": 896,
        "num_layers": 24,
        "num_heads": 14,
        "num_kv_heads": 2,
        "vocab_size": 151_936,
        "intermediate_size": 4864,
        "max_position_embeddings": 32_768,
        "rope_theta": 1e6,
        "rope_type": 2,
        "rms_norm_eps": 1e-6,
        "head_dim": 64,
        "tied_embeddings": True,
    }
    # An integer would be a different byte string for the same value.
    assert b'"rope_theta":1000000.0' in metadata.encode()


@pytest.mark.parametrize("key", ["hidden_size", "n_layers", "license"])
def test_free_keys_cannot_replace_the_architecture(key: str) -> None:
    with pytest.raises(Refusal) as caught:
        metadata_from_architecture(LLAMA, num_parameters=LLAMA.num_parameters, free={key: 1})
    assert caught.value.id == "container.metadata-key"


def test_what_claims_to_be_a_model() -> None:
    assert claims_a_model(Metadata(hf_model_type="whisper"), [])
    assert claims_a_model(Metadata(hidden_size=4), [])
    assert claims_a_model(Metadata(), ["lm_head.weight"])
    assert claims_a_model(Metadata(), ["model.layers.0.x"])
    assert not claims_a_model(Metadata(model_type="linear_regression"), ["weights", "bias"])
