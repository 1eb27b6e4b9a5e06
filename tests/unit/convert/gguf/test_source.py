"""A GGUF file as a source: the architecture it says, every tensor once, and nothing else taken."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from tests import gguf_models, tokenizer_files
from tests.gguf_models import FAMILIES, LLAMA, LLAMA3, QWEN2, UNTIED, GgufModel, weights, whole

from apr.architecture import RopeScaling
from apr.convert.gguf.source import read_gguf_source
from apr.errors import Refusal

Change = Callable[[GgufModel], object]


def read(made: GgufModel, tmp_path: Path):
    return read_gguf_source(made.write(tmp_path / "model.gguf"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_converted_model_is_read_as_what_it_was(family: str, tmp_path: Path) -> None:
    architecture = FAMILIES[family]
    source = read(gguf_models.model(architecture), tmp_path)
    assert source.architecture == architecture
    assert list(source.tensors) == list(architecture.parameter_shapes())
    for name, array in weights(architecture).items():
        tensor = source.tensors[name]
        assert (tensor.name, tensor.dtype, tensor.shape) == (name, "f32", array.shape)
        assert whole(tensor) == array.tobytes()
    reference = source.reference
    assert reference.rotary_pairs == ("adjacent" if family in ADJACENT else "halves")
    assert reference.rms_norm_eps == architecture.rms_norm_eps
    assert reference.rope_theta == architecture.rope_theta
    assert (reference.head_dim, reference.vocab_size) == (
        architecture.head_dim,
        architecture.vocab_size,
    )
    assert source.files == (tmp_path / "model.gguf",)


ADJACENT = ("llama", "untied", "llama3")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_stored_rows_are_the_files(family: str, tmp_path: Path) -> None:
    made = gguf_models.model(FAMILIES[family])
    source = read(made, tmp_path)
    name = "model.layers.1.self_attn.q_proj.weight"
    assert whole(source.stored[name]) == made.arrays["blk.1.attn_q.weight"].tobytes()
    differs = whole(source.stored[name]) != whole(source.tensors[name])
    assert differs == (family in ADJACENT)


def test_rows_that_were_not_moved_show(tmp_path: Path) -> None:
    """The planted fault: q/k of a llama written in Hugging Face's order."""
    made = gguf_models.model()
    array = weights(LLAMA)["model.layers.0.self_attn.q_proj.weight"]
    made.arrays["blk.0.attn_q.weight"] = array
    source = read(made, tmp_path)
    assert whole(source.tensors["model.layers.0.self_attn.q_proj.weight"]) != array.tobytes()


@pytest.mark.parametrize("dtype", ["Q8_0", "F16", "BF16"])
def test_other_data_types_are_handed_over_as_they_are(dtype: str, tmp_path: Path) -> None:
    made = gguf_models.model()
    kind = gguf.GGMLQuantizationType[dtype]
    stored = gguf.quants.quantize(made.arrays["blk.0.attn_q.weight"], kind)
    made.arrays["blk.0.attn_q.weight"] = stored
    made.types["blk.0.attn_q.weight"] = kind
    source = read(made, tmp_path)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert source.tensors[name].dtype == dtype.lower()
    assert source.tensors[name].shape == (32, 32)
    assert whole(source.stored[name]) == stored.tobytes()
    # The same values in the other order, by gguf-py's dequantiser.
    back = np.frombuffer(whole(source.tensors[name]), dtype=stored.dtype).reshape(stored.shape)
    expected = weights(LLAMA)[name]
    found = gguf.quants.dequantize(back, kind)
    assert np.allclose(found, expected, atol=0.05)


def test_a_head_that_repeats_the_embedding_is_tied(tmp_path: Path) -> None:
    made = gguf_models.model()
    made.arrays["output.weight"] = made.arrays["token_embd.weight"].copy()
    source = read(made, tmp_path)
    assert source.architecture == LLAMA
    assert "lm_head.weight" not in source.stored
    assert any("tied" in note for note in source.notes)


def test_a_head_that_differs_in_one_bit_is_a_head(tmp_path: Path) -> None:
    made = gguf_models.model()
    head = made.arrays["token_embd.weight"].copy()
    head[-1, -1] = np.nextafter(head[-1, -1], 9, dtype=np.float32)
    made.arrays["output.weight"] = head
    source = read(made, tmp_path)
    assert source.architecture == UNTIED
    assert whole(source.tensors["lm_head.weight"]) == head.tobytes()


def test_defaults_are_llama_cpps_and_said(tmp_path: Path) -> None:
    made = gguf_models.model(replace(LLAMA, num_key_value_heads=4))
    del made.keys["llama.rope.freq_base"], made.keys["llama.attention.head_count_kv"]
    for name in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        del made.keys[f"llama.{name}"]
    del made.keys["llama.vocab_size"]
    source = read(made, tmp_path)
    assert source.architecture == replace(LLAMA, num_key_value_heads=4)
    assert sum("by definition" in n or "by llama.cpp" in n for n in source.notes) == 2


def test_special_ids_template_and_licence_are_kept(tmp_path: Path) -> None:
    made = gguf_models.model()
    made.set("tokenizer.ggml.bos_token_id", 3).set("tokenizer.ggml.eot_token_id", 4)
    made.set("tokenizer.ggml.padding_token_id", 5)
    made.set("tokenizer.chat_template", "{{ x }}", "STRING")
    made.set("general.license", "apache-2.0", "STRING")
    source = read(made, tmp_path)
    eos = made.keys["tokenizer.ggml.eos_token_id"][0]
    assert source.hf_config == {"bos_token_id": 3, "eos_token_id": [eos, 4], "pad_token_id": 5}
    assert (source.chat_template, source.said) == ("{{ x }}", {"license": "apache-2.0"})


def test_harmless_keys_change_nothing(tmp_path: Path) -> None:
    made = gguf_models.model()
    made.set("llama.expert_count", 0).set("llama.attention.sliding_window", 0)
    made.set("llama.rope.scaling.type", "none", "STRING")
    made.set("llama.rope.scaling.factor", 1.0, "FLOAT32")
    made.set("llama.attention.causal", True, "BOOL")
    made.set("llama.rope.scaling.original_context_length", 8192)
    made.set("llama.attention.head_count_kv", [2, 2], "ARRAY")
    made.set("general.quantized_by", "someone", "STRING").set("split.count", 1, "UINT16")
    assert read(made, tmp_path).architecture == LLAMA


def without_key(key: str) -> Change:
    return lambda made: made.keys.pop(key)


def with_key(key: str, value: object, kind: str = "UINT32") -> Change:
    return lambda made: made.set(key, value, kind)


def slug(name: str) -> Change:
    return lambda made: setattr(made, "slug", name)


def without_tensor(name: str) -> Change:
    return lambda made: made.arrays.pop(name)


def with_tensor(name: str, *shape: int) -> Change:
    return lambda made: made.arrays.update({name: np.ones(shape, dtype=np.float32)})


def typed(name: str, kind: str) -> Change:
    def change(made: GgufModel) -> None:
        made.types[name] = gguf.GGMLQuantizationType[kind]
        made.arrays[name] = gguf.quants.quantize(made.arrays[name], made.types[name])

    return change


REFUSED: list[tuple[str, Change]] = [
    *(
        ("gguf.family", slug(name))
        for name in ("bert", "t5", "mamba", "qwen2moe", "mmproj", "clip", "mistral3", "Llama")
    ),
    ("gguf.not-a-model", with_key("general.type", "adapter", "STRING")),
    ("gguf.split", with_key("split.count", 2, "UINT16")),
    *(
        ("gguf.key-missing", without_key(f"llama.{name}"))
        for name in (
            "context_length",
            "embedding_length",
            "block_count",
            "feed_forward_length",
            "attention.head_count",
            "attention.layer_norm_rms_epsilon",
        )
    ),
    ("gguf.key-type", with_key("llama.block_count", "two", "STRING")),
    ("gguf.key-type", with_key("llama.block_count", 2.0, "FLOAT32")),
    ("gguf.key-type", with_key("llama.rope.freq_base", True, "BOOL")),
    ("gguf.key-type", with_key("general.license", 4)),
    ("gguf.key-type", with_key("tokenizer.ggml.tokens", [1, 2], "ARRAY")),
    ("gguf.layers-differ", with_key("llama.attention.head_count_kv", [2, 4], "ARRAY")),
    ("gguf.key-unsupported", with_key("llama.expert_count", 8)),
    ("gguf.key-unsupported", with_key("llama.attention.sliding_window", 4096)),
    ("gguf.key-unsupported", with_key("llama.rope.scaling.type", "yarn", "STRING")),
    ("gguf.key-unsupported", with_key("llama.rope.scaling.factor", 4.0, "FLOAT32")),
    ("gguf.key-unsupported", with_key("llama.rope.scale_linear", 2.0, "FLOAT32")),
    ("gguf.key-unsupported", with_key("llama.attention.causal", False, "BOOL")),
    ("gguf.key-unsupported", with_key("llama.attention.scale", 0.5, "FLOAT32")),
    ("gguf.key-unsupported", with_key("llama.logit_scale", 2.0, "FLOAT32")),
    ("gguf.key-unsupported", with_key("llama.pooling_type", 1)),
    ("gguf.key-unsupported", with_key("llama.a.key.of.2030", [1], "ARRAY")),
    ("gguf.head-dim", with_key("llama.rope.dimension_count", 4)),
    ("gguf.head-dim", with_key("llama.attention.value_length", 16)),
    ("gguf.head-dim", with_key("llama.attention.key_length", 0)),
    ("architecture.shape", with_key("llama.attention.head_count_kv", 3)),
    ("architecture.shape", with_key("llama.attention.layer_norm_rms_epsilon", 0.0, "FLOAT32")),
    ("architecture.shape", with_key("llama.rope.freq_base", float("inf"), "FLOAT32")),
    ("gguf.vocab-size-differs", with_key("llama.vocab_size", 263)),
    ("gguf.vocab-size-differs", with_key("tokenizer.ggml.tokens", ["a", "b"], "ARRAY")),
    ("gguf.vocab-size-differs", with_key("tokenizer.ggml.token_type", [1, 1], "ARRAY")),
    ("gguf.token-repeated", with_key("tokenizer.ggml.tokens", ["a"] * 262, "ARRAY")),
    ("gguf.merges-missing", without_key("tokenizer.ggml.merges")),
    ("gguf.special-id", with_key("tokenizer.ggml.bos_token_id", 262)),
    ("gguf.special-id", with_key("tokenizer.ggml.eos_token_id", -1, "INT32")),
    ("import.tensor-missing", without_tensor("token_embd.weight")),
    ("import.tensor-missing", without_tensor("output_norm.weight")),
    ("import.tensor-missing", without_tensor("blk.1.ffn_up.weight")),
    ("import.tensor-missing", with_key("llama.block_count", 3)),
    ("import.tensor-missing", with_key("llama.block_count", 1 << 31)),
    ("import.tensor-unexpected", with_key("llama.block_count", 1)),
    ("import.tensor-unexpected", with_tensor("blk.0.attn_q.bias", 32)),
    ("import.tensor-unexpected", with_tensor("blk.0.attn_output.bias", 32)),
    ("import.tensor-unexpected", with_tensor("blk.0.attn_q_norm.weight", 8)),
    ("import.tensor-unexpected", with_tensor("blk.0.ffn_gate_exps.weight", 2, 48, 32)),
    ("import.tensor-unexpected", with_tensor("v.patch_embd.weight", 2)),
    ("import.tensor-shape-differs", with_tensor("blk.0.ffn_down.weight", 48, 32)),
    ("import.tensor-shape-differs", with_tensor("blk.0.attn_norm.weight", 1, 32)),
    ("import.tensor-shape-differs", with_tensor("output_norm.weight", 31)),
    ("gguf.tensor-type-unsupported", typed("blk.0.attn_q.weight", "Q4_0")),
    ("gguf.rope-factors", with_tensor("rope_freqs.weight", 3)),
    ("gguf.rope-scaling-unknown", lambda made: made.arrays.update(
        {"rope_freqs.weight": np.array([1, 1, 2, 9], dtype=np.float32)})),
    ("gguf.rope-factors", lambda made: made.arrays.update(
        {"rope_freqs.weight": np.array([1, 1, 2, -9], dtype=np.float32)})),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_is_not_exactly_such_a_model_is_refused(number: int, tmp_path: Path) -> None:
    id, change = REFUSED[number]
    made = gguf_models.model()
    change(made)
    with pytest.raises(Refusal) as caught:
        read(made, tmp_path)
    assert caught.value.id == id


def test_qwen_has_no_place_for_divisors_and_needs_its_biases(tmp_path: Path) -> None:
    made = gguf_models.model(QWEN2)
    made.arrays["rope_freqs.weight"] = np.ones(4, dtype=np.float32)
    with pytest.raises(Refusal, match=r"import\.tensor-unexpected"):
        read(made, tmp_path)
    made = gguf_models.model(QWEN2)
    del made.arrays["blk.1.attn_k.bias"]
    with pytest.raises(Refusal, match=r"import\.tensor-missing.*\n.*blk\.1\.attn_k\.bias"):
        read(made, tmp_path)


def test_the_divisors_go_to_the_reference_as_they_are(tmp_path: Path) -> None:
    made = gguf_models.model(LLAMA3)
    source = read(made, tmp_path)
    assert source.reference.rope_factors == tuple(made.arrays["rope_freqs.weight"].tolist())
    assert source.reference.rope_scaling is None
    assert source.architecture.rope_scaling == LLAMA3.rope_scaling
    # Some wave is kept, some is slowed, and some is between: the test says something.
    assert len({*source.reference.rope_factors}) > 3


@pytest.mark.parametrize("factor", [8.0, 32.0])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_published_scalings_are_recognised(factor: float, head_dim: int, tmp_path: Path) -> None:
    scaling = replace(LLAMA3.rope_scaling, factor=factor)  # type: ignore[type-var]
    architecture = replace(LLAMA3, rope_scaling=scaling, head_dim=head_dim)
    assert read(gguf_models.model(architecture), tmp_path).architecture == architecture


def test_a_theta_that_is_none_is_refused_before_it_is_used(tmp_path: Path) -> None:
    made = gguf_models.model(LLAMA3).set("llama.rope.freq_base", -1.0, "FLOAT32")
    with pytest.raises(Refusal, match=r"architecture\.shape"):
        read(made, tmp_path)


def test_extreme_numbers_beside_the_divisors_are_compared_and_no_more(tmp_path: Path) -> None:
    made = gguf_models.model(LLAMA3)
    extreme = {"factor": 1e-320, "low_freq_factor": 1e-320, "high_freq_factor": 1e-319}
    for name, value in extreme.items():
        made.set(f"apr.rope_scaling.{name}", value, "FLOAT64")
    made.set("apr.rope_scaling.original_max_position_embeddings", 1)
    assert read(made, tmp_path).architecture == LLAMA3


def test_a_scaling_between_the_published_ones_is_not_rounded_to_one(tmp_path: Path) -> None:
    scaling = RopeScaling(
        factor=8.001,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    )
    with pytest.raises(Refusal, match=r"gguf\.rope-scaling-unknown"):
        read(gguf_models.model(replace(LLAMA3, rope_scaling=scaling)), tmp_path)


@pytest.mark.parametrize("theta", [0.0, 1e-40, float("inf")])
def test_a_base_that_overflows_is_refused_and_not_warned_about(
    theta: float, tmp_path: Path
) -> None:
    made = gguf_models.model(LLAMA3)
    made.set("llama.rope.freq_base", theta, "FLOAT32")
    with pytest.raises(Refusal, match=r"architecture\.shape"):
        read(made, tmp_path)


def test_divisors_of_one_are_no_scaling(tmp_path: Path) -> None:
    made = gguf_models.model()
    made.arrays["rope_freqs.weight"] = np.ones(4, dtype=np.float32)
    source = read(made, tmp_path)
    assert source.architecture == LLAMA
    assert source.reference.rope_factors == (1.0,) * 4


@pytest.mark.parametrize("pre", ["gpt-2", None, "default", "falcon"])
def test_a_tokenizer_is_built_only_from_a_name_that_is_known(
    pre: str | None, tmp_path: Path
) -> None:
    made = gguf_models.model()
    if pre is None:
        del made.keys["tokenizer.ggml.pre"]
    else:
        made.set("tokenizer.ggml.pre", pre, "STRING")
    source = read(made, tmp_path)
    if pre == "gpt-2":
        assert source.tokenizer
        assert source.tokenizer.fingerprint == tokenizer_files.tokenizer().fingerprint
    else:
        assert source.tokenizer is None
        assert any("--tokenizer" in note and repr(pre) in note for note in source.notes)


def test_a_file_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    source = read(gguf_models.model(pre=None), tmp_path)
    assert source.tokenizer is None
    assert any("--tokenizer" in note for note in source.notes)
