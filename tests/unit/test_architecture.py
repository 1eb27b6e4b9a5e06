"""Exact counts against published ones, and shapes that cannot be."""

from dataclasses import replace

import pytest

from apr.architecture import PRESET_NAMES, RopeScaling, preset
from apr.errors import Refusal, UsageRefusal


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [
        ("qwen2-0.5b", 494_032_768),
        ("qwen2-1.5b", 1_543_714_304),
        ("qwen2-7b", 7_615_616_512),
        ("qwen3-0.6b", 596_049_920),
        ("smollm2-135m", 134_515_008),
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-370m", 373_509_120),
    ],
)
def test_published_parameter_counts(name: str, num_parameters: int) -> None:
    assert preset(name, tokenizer_vocab_size=1).num_parameters == num_parameters


def test_tying_saves_exactly_the_head() -> None:
    tied = preset("qwen2-0.5b", tokenizer_vocab_size=1)
    untied = replace(tied, tie_word_embeddings=False)
    assert untied.num_parameters - tied.num_parameters == tied.vocab_size * tied.hidden_size
    assert untied.num_matmul_parameters() == tied.num_matmul_parameters()


def test_flops_of_the_reference_roofline() -> None:
    # 2.147 + 0.817 + 0.528 (0.264 causal) GFLOP per token at 2048 positions.
    qwen = preset("qwen2-0.5b", tokenizer_vocab_size=1)
    conventional = qwen.training_flops_per_token(2048, convention="conventional")
    causal = qwen.training_flops_per_token(2048, convention="causal")
    assert conventional / 1e9 == pytest.approx(3.492, abs=1e-3)
    assert causal / 1e9 == pytest.approx(3.228, abs=1e-3)


def test_small_presets_take_their_vocabulary_from_the_tokenizer() -> None:
    assert preset("tiny", tokenizer_vocab_size=777).vocab_size == 777
    assert preset("demo", tokenizer_vocab_size=4096).num_parameters == 2_410_176
    assert preset("tiny", tokenizer_vocab_size=8192).num_parameters < 2_000_000
    assert preset("llama-370m", tokenizer_vocab_size=777).vocab_size == 50_257
    assert preset("llama-370m", tokenizer_vocab_size=777, vocab_size=64).vocab_size == 64


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageRefusal) as refused:
        preset("llama-371m", tokenizer_vocab_size=1)
    assert refused.value.id == "config.unknown-preset"
    assert all(name in refused.value.expected for name in PRESET_NAMES)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", 0),
        ("num_hidden_layers", -1),
        ("vocab_size", 1.0),
        ("vocab_size", True),
        ("num_key_value_heads", 3),
        ("head_dim", 15),
        ("rope_theta", 0.0),
        ("rms_norm_eps", float("nan")),
        ("rope_theta", float("inf")),
        ("rope_theta", 1e-320),
        ("rope_theta", 0.999),
        ("hidden_size", 1 << 60),
    ],
)
def test_impossible_shapes_are_refused(field: str, value: object) -> None:
    good = preset("tiny", tokenizer_vocab_size=300)
    with pytest.raises(Refusal) as refused:
        replace(good, **{field: value})
    assert refused.value.id == "architecture.shape"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("factor", 10**400),
        ("factor", float("nan")),
        ("low_freq_factor", 0),
        ("high_freq_factor", 1.0),
        ("original_max_position_embeddings", 32.0),
        ("original_max_position_embeddings", 1 << 40),
    ],
)
def test_impossible_scalings_are_refused(field: str, value: object) -> None:
    good = RopeScaling(
        factor=8,  # an integer, where JSON has one
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    )
    with pytest.raises(Refusal) as refused:
        replace(good, **{field: value})
    assert refused.value.id == "architecture.shape"
    assert field in refused.value.where


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        replace(preset("tiny", tokenizer_vocab_size=300), model_type="bert")
    assert refused.value.id == "architecture.family"


def test_state_memory_is_sixteen_bytes_a_parameter() -> None:
    tiny = preset("tiny", tokenizer_vocab_size=300)
    assert tiny.training_state_bytes() == 16 * tiny.num_parameters
