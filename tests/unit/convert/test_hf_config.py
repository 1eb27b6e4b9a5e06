"""Reading config.json: real ones, each family, and every key that must not be passed over."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.hf_models import LLAMA3_SCALING, config
from tests.reference_data import reference

from apr.architecture import HF_CLASSES, Architecture, RopeScaling, preset
from apr.convert.huggingface.config import HfConfig, read_config_object, read_hf_config
from apr.convert.huggingface.reference_config import reference_config
from apr.errors import DamagedFile, Refusal

WHERE = Path("config.json")
SCALING = RopeScaling(
    factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
)


def read(raw: dict[str, Any]) -> HfConfig:
    return read_hf_config(raw, where=WHERE)


def refusal_of(raw: dict[str, Any]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read(raw)
    assert "config.json" in caught.value.where or caught.value.id == "architecture.shape"
    return caught.value


def without(family: str, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in config(family, tied=True).items() if key not in keys}


def changed(family: str = "llama", /, **keys: Any) -> dict[str, Any]:
    return config(family, tied=True) | keys


REAL = {
    "qwen2.5-0.5b-instruct": ("qwen2-0.5b", 494_032_768),
    "llama-3.2-1b-instruct": ("llama-3.2-1b", 1_235_814_400),
    "smollm2-135m": ("smollm2-135m", 134_515_008),
}


@pytest.mark.parametrize("name", REAL)
def test_the_real_configs(shared_data: Path, name: str) -> None:
    preset_name, num_parameters = REAL[name]
    path = reference(shared_data, f"configs/hf/{name}.config.json")
    found = read_hf_config(read_config_object(path), where=path)
    assert found.architecture.num_parameters == num_parameters
    assert found.architecture == preset(preset_name, tokenizer_vocab_size=1)
    assert found.notes == ()
    assert "bos_token_id" in found.rest
    assert "initializer_range" in found.rest
    assert not {"hidden_size", "rope_theta", "pretraining_tp"} & set(found.rest)


def test_a_real_encoder_is_refused_by_name(shared_data: Path) -> None:
    path = reference(shared_data, "configs/hf/bert-base-uncased.config.json")
    refusal = refusal_of(read_config_object(path))
    assert refusal.id == "import.family"
    assert refusal.upstream_id == "FALSIFY-APR-PRETRAIN-ARCH-007"
    assert refusal.found == "bert (BertForSequenceClassification), an encoder"
    assert "decoder-only" in refusal.expected


@pytest.mark.parametrize("family", HF_CLASSES)
def test_each_family(family: str) -> None:
    found = read(changed(family))
    assert found.architecture == Architecture(
        model_type=family,  # pyright: ignore[reportArgumentType]
        vocab_size=264,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        max_position_embeddings=64,
        rope_theta=10_000.0,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
    )
    assert found.notes == ()
    assert found.is_tie_stated
    assert {"bos_token_id": 1, "eos_token_id": 2, "use_cache": True}.items() <= found.rest.items()


@pytest.mark.parametrize("family", HF_CLASSES)
def test_what_is_written_is_read_back(family: str) -> None:
    for scaling in (None, LLAMA3_SCALING):
        architecture = read(changed(family, rope_scaling=scaling)).architecture
        assert read(architecture.to_hf_config()).architecture == architecture


# Which keys have no default, and which a family may leave out.

REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "hidden_act",
    "model_type",
    "architectures",
)


@pytest.mark.parametrize("family", HF_CLASSES)
@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_key_is_refused_by_name(family: str, key: str) -> None:
    for raw in (without(family, key), changed(family, **{key: None})):
        refusal = refusal_of(raw)
        assert refusal.id == "import.config-missing"
        assert refusal.found == f"no {key}"


@pytest.mark.parametrize(
    ("family", "key"),
    [
        ("mistral", "num_key_value_heads"),
        ("qwen2", "num_key_value_heads"),
        ("qwen3", "num_key_value_heads"),
        ("qwen3", "head_dim"),
        ("mistral", "rope_theta"),
        ("qwen2", "rope_theta"),
        ("qwen3", "rope_theta"),
    ],
)
def test_only_llama_may_leave_out_what_its_first_files_lack(family: str, key: str) -> None:
    assert refusal_of(without(family, key)).found == f"no {key}"


def test_the_first_llama_files(tmp_path: Path) -> None:
    found = read(without("llama", "num_key_value_heads", "rope_theta", "head_dim"))
    assert found.architecture.num_key_value_heads == 2
    assert found.architecture.rope_theta == 10_000.0
    assert found.architecture.head_dim == 4
    assert ["num_key_value_heads" in found.notes[0], "rope_theta" in found.notes[1]] == [True, True]


def test_an_unstated_tie_is_untied_and_said(tmp_path: Path) -> None:
    found = read(without("qwen2", "tie_word_embeddings"))
    assert not found.architecture.tie_word_embeddings
    assert not found.is_tie_stated
    assert "untied" in found.notes[0]


def test_all_missing_keys_are_named_at_once() -> None:
    assert refusal_of(without("llama", "vocab_size", "hidden_act")).found == (
        "no vocab_size, hidden_act"
    )


# Families and kinds.


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ({"model_type": "roberta"}, "an encoder"),
        ({"model_type": "xlm-roberta"}, "an encoder"),
        ({"model_type": "distilbert"}, "an encoder"),
        ({"model_type": "deberta-v2"}, "an encoder"),
        ({"model_type": "electra"}, "an encoder"),
        ({"model_type": "t5"}, "an encoder and a decoder"),
        ({"model_type": "bart"}, "an encoder and a decoder"),
        ({"model_type": "mine", "is_encoder_decoder": True}, "an encoder and a decoder"),
        ({"model_type": "whisper"}, "an audio model"),
        ({"model_type": "wav2vec2"}, "an audio model"),
        ({"audio_config": {"a": 1}}, "an audio model"),
        ({"model_type": "clip"}, "a model of images"),
        ({"vision_config": {"a": 1}}, "a model of images"),
        ({"model_type": "mamba"}, "a state-space or recurrent model"),
        ({"model_type": "mixtral"}, "a mixture of experts"),
        ({"model_type": "qwen2_moe"}, "a mixture of experts"),
        ({"peft_type": "LORA"}, "an adapter"),
        ({"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.1"}, "a diffusion model"),
    ],
)
def test_another_kind_is_refused_with_its_name(keys: dict[str, Any], kind: str) -> None:
    refusal = refusal_of(changed(**keys))
    assert refusal.id == "import.family"
    assert refusal.upstream_id == "FALSIFY-APR-PRETRAIN-ARCH-007"
    assert refusal.found.endswith(f", {kind}")


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "phi3", "olmo2", "Llama", "invented"])
def test_another_decoder_is_refused_with_its_name(family: str) -> None:
    refusal = refusal_of(changed(model_type=family, architectures=["XForCausalLM"]))
    assert refusal.id == "import.family"
    assert refusal.upstream_id is None
    assert refusal.found == f"{family} (XForCausalLM)"


@pytest.mark.parametrize(
    ("architectures", "found"),
    [
        (["LlamaForSequenceClassification"], "LlamaForSequenceClassification"),
        (["LlamaModel"], "LlamaModel, a model without its head"),
        (["Qwen2ForCausalLM"], "Qwen2ForCausalLM"),
        (["LlamaForCausalLM", "LlamaModel"], "LlamaForCausalLM, LlamaModel"),
        ("LlamaForCausalLM", "LlamaForCausalLM"),
        ([], "no class named"),
    ],
)
def test_another_class(architectures: Any, found: str) -> None:
    refusal = refusal_of(changed(architectures=architectures))
    assert refusal.id == "import.architecture-class"
    assert refusal.found == f"architectures {found}"


# Values.


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 8.0),
        ("hidden_size", True),
        ("hidden_size", "8"),
        ("hidden_size", 0),
        ("hidden_size", -8),
        ("num_hidden_layers", 10**9),
        ("vocab_size", 1 << 40),
        ("head_dim", 4.0),
        ("num_key_value_heads", 0),
        ("max_position_embeddings", "64"),
        ("rms_norm_eps", "1e-6"),
        ("rms_norm_eps", 0),
        ("rms_norm_eps", float("nan")),
        ("rms_norm_eps", 1e-6 + 1),
        # No float is as large, and asking whether it is finite would be an OverflowError.
        ("rms_norm_eps", 10**400),
        ("rope_theta", 10**400),
        ("rope_theta", True),
        ("rope_theta", 0),
        ("rope_theta", float("inf")),
        ("tie_word_embeddings", 1),
        ("tie_word_embeddings", "true"),
        ("bos_token_id", 264),
        ("eos_token_id", [1, 264]),
        ("eos_token_id", []),
        ("eos_token_id", "</s>"),
        ("pad_token_id", -2),
        ("attention_bias", 0),
        ("rope_scaling", []),
        ("rope_parameters", "default"),
    ],
)
def test_a_value_that_the_key_cannot_have(key: str, value: Any) -> None:
    refusal = refusal_of(changed(**{key: value}))
    assert refusal.id == "import.config-value"
    assert repr(key) in refusal.where


def test_shapes_no_model_has() -> None:
    assert refusal_of(changed(head_dim=3)).id == "architecture.shape"
    assert refusal_of(changed(num_key_value_heads=4)).id == "architecture.shape"
    odd = without("llama", "head_dim") | {"num_attention_heads": 3}
    refusal = refusal_of(odd)
    assert refusal.id == "import.config-value"
    assert "3 heads do not divide a hidden_size of 8" in refusal.expected


def test_a_pad_id_of_minus_one_is_none() -> None:
    found = read(changed(pad_token_id=-1))
    assert "pad_token_id" not in found.rest
    assert found.notes == ("pad_token_id -1 was read as none",)


def test_integers_where_floats_stand() -> None:
    assert read(changed(rope_theta=10_000)).architecture.rope_theta == 10_000.0


# Rotary embeddings.


@pytest.mark.parametrize(
    ("keys", "scaling"),
    [
        ({"rope_scaling": None}, None),
        ({"rope_scaling": {"rope_type": "default"}}, None),
        ({"rope_scaling": {"type": "default"}}, None),
        ({"rope_scaling": LLAMA3_SCALING}, SCALING),
        ({"rope_scaling": {"type": "llama3", **LLAMA3_SCALING}}, SCALING),
        ({"rope_parameters": {"rope_theta": 10_000.0, "rope_type": "default"}}, None),
        ({"rope_parameters": {"rope_theta": 10_000.0}}, None),
        ({"rope_parameters": {"rope_theta": 10_000, **LLAMA3_SCALING}}, SCALING),
        (
            {
                "rope_scaling": LLAMA3_SCALING,
                "rope_parameters": {"rope_theta": 10_000.0, **LLAMA3_SCALING},
            },
            SCALING,
        ),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 1.0}}, None),
    ],
)
def test_rotary_keys_that_are_known(keys: dict[str, Any], scaling: RopeScaling | None) -> None:
    raw = changed(**keys)
    assert read(raw).architecture.rope_scaling == scaling
    if "rope_parameters" in keys and "rope_theta" in keys["rope_parameters"]:
        del raw["rope_theta"]
        for family in HF_CLASSES:
            again = raw | {
                "model_type": family,
                "architectures": [HF_CLASSES[family]],
                "sliding_window": None,
            }
            assert read(again).architecture.rope_theta == 10_000.0


@pytest.mark.parametrize(
    "kind", ["linear", "dynamic", "yarn", "longrope", "su", "mrope", "proportional"]
)
def test_another_scaling_is_refused_by_name(kind: str) -> None:
    for keys in (
        {"rope_scaling": {"type": kind, "factor": 2.0}},
        {"rope_scaling": {"rope_type": kind, "factor": 2.0}},
        {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0}},
    ):
        refusal = refusal_of(changed(**keys))
        assert refusal.id == "import.config-unsupported"
        assert kind in refusal.found


@pytest.mark.parametrize(
    ("keys", "id"),
    [
        ({"rope_scaling": {"factor": 2.0}}, "import.config-unsupported"),
        ({"rope_scaling": {"type": "mrope", "rope_type": "default"}}, "import.config-unsupported"),
        ({"rope_scaling": {"type": ["default"]}}, "import.config-unsupported"),
        ({"rope_scaling": {"type": "default", "factor": 2.0}}, "import.config-unknown-key"),
        ({"rope_scaling": LLAMA3_SCALING | {"beta_fast": 32}}, "import.config-unknown-key"),
        ({"rope_scaling": LLAMA3_SCALING | {"factor": None}}, "import.config-value"),
        ({"rope_scaling": LLAMA3_SCALING | {"factor": "8"}}, "import.config-value"),
        ({"rope_scaling": LLAMA3_SCALING | {"factor": 10**400}}, "import.config-value"),
        ({"rope_scaling": LLAMA3_SCALING | {"factor": float("nan")}}, "import.config-value"),
        ({"rope_scaling": LLAMA3_SCALING | {"factor": -8.0}}, "architecture.shape"),
        ({"rope_scaling": LLAMA3_SCALING | {"low_freq_factor": 4.0}}, "architecture.shape"),
        (
            {"rope_scaling": LLAMA3_SCALING | {"original_max_position_embeddings": 32.0}},
            "import.config-value",
        ),
        ({"rope_parameters": {"rope_theta": 1e6}}, "import.config-disagrees"),
        (
            {"rope_scaling": LLAMA3_SCALING, "rope_parameters": {"rope_type": "default"}},
            "import.config-disagrees",
        ),
        (
            {
                "rope_scaling": LLAMA3_SCALING,
                "rope_parameters": LLAMA3_SCALING | {"factor": 32.0},
            },
            "import.config-disagrees",
        ),
        (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            "import.config-unknown-key",
        ),
    ],
)
def test_rotary_keys_that_are_refused(keys: dict[str, Any], id: str) -> None:
    assert refusal_of(changed(**keys)).id == id


# Windows.


@pytest.mark.parametrize(
    ("family", "keys", "is_refused"),
    [
        ("mistral", {"sliding_window": None}, False),
        ("mistral", {"sliding_window": 64}, False),
        ("mistral", {"sliding_window": 63}, True),
        ("mistral", {"sliding_window": 32, "use_sliding_window": False}, True),
        ("mistral", {"sliding_window": 64.0}, True),
        ("llama", {"sliding_window": 32}, True),
        ("llama", {"sliding_window": None}, False),
        ("qwen2", {"sliding_window": 32, "use_sliding_window": False}, False),
        ("qwen2", {"sliding_window": 32}, False),
        ("qwen2", {"sliding_window": 32, "use_sliding_window": True}, True),
        ("qwen2", {"sliding_window": 64, "use_sliding_window": True}, False),
        ("qwen2", {"sliding_window": None, "use_sliding_window": True}, False),
        ("qwen3", {"sliding_window": 32, "use_sliding_window": True}, True),
        ("qwen3", {"max_position_embeddings": 40_960, "use_sliding_window": True}, True),
        ("qwen3", {"layer_types": ["full_attention"] * 2}, False),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, True),
        ("qwen3", {"layer_types": ["full_attention"]}, True),
    ],
)
def test_a_window_that_acts_is_refused(family: str, keys: dict[str, Any], is_refused: bool) -> None:
    raw = changed(family, **keys)
    if not is_refused:
        assert read(raw).architecture.model_type == family
        return
    refusal = refusal_of(raw)
    assert refusal.id == "import.config-unsupported"
    assert "sliding_window" in refusal.where or "layer_types" in refusal.where


def test_a_mistral_without_the_key_has_the_window_of_its_class() -> None:
    # transformers builds such a model with a window of 4096.
    short = without("mistral", "sliding_window")
    assert "never acts" in read(short).notes[0]
    refusal = refusal_of(short | {"max_position_embeddings": 32_768})
    assert refusal.id == "import.config-unsupported"
    assert "4096" in refusal.found
    assert "default of Hugging Face's class" in refusal.found


# Everything else that changes the mathematics.


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "gelu"),
        ("hidden_act", "relu2"),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("qkv_bias", True),
        ("quantization_config", {"quant_method": "gptq", "bits": 4}),
        ("partial_rotary_factor", 0.5),
        ("rotary_pct", 0.25),
        ("rope_interleaved", True),
        ("pretraining_tp", 2),
        ("attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", 30.0),
        ("logits_scaling", 8.0),
        ("embedding_multiplier", 12.0),
        ("residual_multiplier", 0.22),
        ("attention_multiplier", 0.015625),
        ("num_experts", 8),
        ("num_local_experts", 8),
        ("qk_layernorm", True),
        ("use_qk_norm", True),
        ("clip_qkv", 8.0),
        ("alibi", True),
        ("scale_emb", 12),
        ("no_rope_layers", [1, 0]),
        ("attention_chunk_size", 8192),
        ("add_cross_attention", True),
        ("norm_type", "layernorm"),
        ("layer_norm_eps", 1e-5),
        ("original_max_position_embeddings", 4096),
    ],
)
def test_mathematics_that_is_not_here(key: str, value: Any) -> None:
    refusal = refusal_of(changed(**{key: value}))
    assert refusal.id == "import.config-unsupported"
    assert refusal.where == f"config.json, key {key!r}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "swish"),
        ("attention_bias", False),
        ("mlp_bias", False),
        ("quantization_config", None),
        ("partial_rotary_factor", 1.0),
        ("partial_rotary_factor", 1),
        ("rope_interleaved", False),
        ("pretraining_tp", 1),
        ("attn_logit_softcapping", None),
        ("logits_scaling", 1.0),
        ("embedding_multiplier", 1.0),
        ("num_experts", 0),
        ("use_qk_norm", False),
        ("pruned_heads", {}),
        ("is_encoder_decoder", False),
        ("vision_config", None),
    ],
)
def test_the_neutral_values_pass(key: str, value: Any) -> None:
    assert read(changed(**{key: value})).architecture == read(changed()).architecture


def test_a_flag_is_not_a_number() -> None:
    assert refusal_of(changed(pretraining_tp=True)).id == "import.config-unsupported"
    assert refusal_of(changed(mlp_bias=0)).id == "import.config-unsupported"


def test_a_qwen2_has_biases_and_may_say_so() -> None:
    assert read(changed("qwen2", attention_bias=True)).architecture.attention_bias
    refusal = refusal_of(changed("qwen2", attention_bias=False))
    assert refusal.id == "import.config-unsupported"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_post_attention_layernorm", True),
        ("rope_magic", 2),
        ("extra_router", {"a": 1}),
        ("my_scaling", 0.5),
        ("num_experts_total", 4),
        ("gated_mlp", True),
        ("attn_new", "x"),
    ],
)
def test_an_unknown_key_that_smells_of_mathematics(key: str, value: Any) -> None:
    refusal = refusal_of(changed(**{key: value}))
    assert refusal.id == "import.config-unknown-key"
    assert refusal.where == f"config.json, key {key!r}"
    for unset in (None, False):
        assert read(changed(**{key: unset})).rest[key] is unset


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("project_name", "x"),
        ("training_date", 2024),
        ("attention_dropout", 0.1),
        ("is_llama_config", True),
        ("max_window_layers", 21),
        ("_attn_implementation_autoset", True),
    ],
)
def test_harmless_keys_pass(key: str, value: Any) -> None:
    found = read(changed(**{key: value}))
    assert found.architecture == read(changed()).architecture
    assert found.notes == ()


def test_code_of_the_models_own_is_never_run() -> None:
    found = read(changed(auto_map={"AutoModel": "modeling_x.X"}))
    assert "none was run" in found.notes[0]


# The file.


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b"\xff{}",
        b"[" * 100_000,
        b" " * ((4 << 20) + 1),
    ],
)
def test_a_file_that_is_no_strict_object(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text)
    with pytest.raises(DamagedFile) as caught:
        read_config_object(path)
    assert caught.value.id == "import.config-damaged"


# The second reader.


@pytest.mark.parametrize("family", HF_CLASSES)
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"rope_scaling": LLAMA3_SCALING},
        {"rope_parameters": {"rope_theta": 10_000.0, **LLAMA3_SCALING}},
        {"rope_theta": 5e5, "rms_norm_eps": 1e-5},
        {"head_dim": 16},
    ],
)
def test_both_readers_agree(family: str, keys: dict[str, Any]) -> None:
    raw = changed(family, **keys)
    ours, theirs = read(raw).architecture, reference_config(raw)
    for name in (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "rms_norm_eps",
        "rope_theta",
    ):
        assert getattr(ours, name) == getattr(theirs, name), name
    scaling = ours.rope_scaling
    assert (scaling is None) is (theirs.rope_scaling is None)
    if scaling and theirs.rope_scaling:
        assert theirs.rope_scaling == {name: getattr(scaling, name) for name in theirs.rope_scaling}


def test_both_readers_agree_on_the_first_llama_files() -> None:
    raw = without("llama", "num_key_value_heads", "rope_theta", "head_dim")
    ours, theirs = read(raw).architecture, reference_config(raw)
    assert (ours.num_key_value_heads, ours.rope_theta, ours.head_dim) == (
        theirs.num_key_value_heads,
        theirs.rope_theta,
        theirs.head_dim,
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@settings(max_examples=400)
@given(st.sampled_from(sorted(HF_CLASSES)), st.data())
def test_any_value_under_any_key_is_read_or_refused(family: str, data: st.DataObject) -> None:
    raw = changed(family)
    keys = [*raw, "rope_scaling", "rope_parameters", "layer_types", "sliding_window", "num_experts"]
    for key in data.draw(st.lists(st.sampled_from(keys), max_size=3)):
        raw[key] = data.draw(JSON)
    try:
        found = read(json.loads(json.dumps(raw)))
    except Refusal:
        return
    assert found.architecture.num_parameters > 0
    assert reference_config(raw).head_dim == found.architecture.head_dim
