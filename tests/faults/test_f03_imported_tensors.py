"""F03: tensors dropped, skipped or compared by count.

Every tensor of a source is used exactly once, with its exact name, shape and type, and a refusal
says what kind of mistake it was.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.hf_models import INNER, VOCAB, WIDTH, HfModel, biases, hf_model

from apr.architecture import HF_CLASSES
from apr.convert.huggingface.source import read_hf_source
from apr.convert.values import check_values
from apr.errors import Refusal

EMBEDDING, NORM = "model.embed_tokens.weight", "model.norm.weight"
LAYER = "model.layers.1."
DOWN = f"{LAYER}mlp.down_proj.weight"
QUERY = f"{LAYER}self_attn.q_proj.weight"


def refusal_of(path: Path, model: HfModel) -> Refusal:
    with pytest.raises(Refusal) as caught:
        check_values(read_hf_source(model.write(path)))
    assert caught.value.exit_code == 5
    return caught.value


def renamed(model: HfModel, change: Callable[[str], str]) -> HfModel:
    model.arrays = {change(name): array for name, array in model.arrays.items()}
    return model


@pytest.mark.parametrize("family", HF_CLASSES)
def test_the_harmless_twins(tmp_path: Path, family: str) -> None:
    source = read_hf_source(hf_model(family).write(tmp_path))
    assert check_values(source) == len(source.tensors) >= 20


@pytest.mark.parametrize("family", HF_CLASSES)
def test_any_missing_tensor_is_named(tmp_path: Path, family: str) -> None:
    names = list(hf_model(family).arrays)
    assert len(names) >= 20
    for at, name in enumerate(names):
        model = hf_model(family)
        del model.arrays[name]
        refusal = refusal_of(tmp_path / str(at), model)
        assert refusal.id == "import.tensor-missing"
        assert refusal.upstream_id == "FALSIFY-APR-PRETRAIN-INIT-007"
        assert name in refusal.found


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3"])
def test_biases_where_the_family_has_none(tmp_path: Path, family: str) -> None:
    model = hf_model(family)
    for layer in range(2):
        model.arrays |= {name: np.ones(shape, "<f4") for name, shape in biases(layer).items()}
    refusal = refusal_of(tmp_path / "all", model)
    assert refusal.id == "import.tensor-unexpected"
    assert f"biases of Qwen2 in a model whose config says {family}" in refusal.found
    assert "and 5 more" in refusal.found
    one = hf_model(family)
    one.arrays[f"{LAYER}self_attn.q_proj.bias"] = np.ones(8, "<f4")
    assert "biases of Qwen2" in refusal_of(tmp_path / "one", one).found


def test_a_qwen2_without_its_biases(tmp_path: Path) -> None:
    model = hf_model("qwen2")
    model.arrays = {name: array for name, array in model.arrays.items() if "bias" not in name}
    refusal = refusal_of(tmp_path / "all", model)
    assert refusal.id == "import.tensor-missing"
    assert "no biases, as Llama has none, in a model whose config says qwen2" in refusal.found
    model = hf_model("qwen2")
    del model.arrays[f"{LAYER}self_attn.k_proj.bias"]
    assert "1 of its 6 biases lost" in refusal_of(tmp_path / "one", model).found


def test_query_and_key_norms_on_either_side(tmp_path: Path) -> None:
    model = hf_model("llama")
    model.arrays[f"{LAYER}self_attn.q_norm.weight"] = np.ones(4, "<f4")
    assert "query and key norms of Qwen3" in refusal_of(tmp_path / "extra", model).found
    model = hf_model("qwen3")
    model.arrays = {
        name: each
        for name, each in model.arrays.items()
        if "_norm.w" not in name or "layernorm" in name or name == NORM
    }
    assert "no query and key norms" in refusal_of(tmp_path / "missing", model).found


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda name: name.removeprefix("model."), "names without 'model.' in front"),
        (lambda name: f"module.{name}", "'module.' in front of every name"),
        (lambda name: f"_orig_mod.{name}", "'_orig_mod.' in front of every name"),
        (lambda name: name.replace("q_proj", "qkv_proj"), "fused into one tensor"),
        (lambda name: name.replace("gate_proj", "gate_up_proj"), "gate and up projections fused"),
        (lambda name: name.replace("q_proj.weight", "q_proj.qweight"), "quantised weights"),
        (lambda name: name.replace("q_proj.", "q_proj.lora_A."), "adapter weights"),
        (lambda name: name.replace("mlp.", "mlp.experts.0."), "mixture of experts"),
        (lambda name: name.replace("model.layers", "blk").replace("layers", "blk"), "GGUF's names"),
    ],
)
def test_names_of_another_kind(tmp_path: Path, change: Callable[[str], str], cause: str) -> None:
    refusal = refusal_of(tmp_path, renamed(hf_model(), change))
    assert refusal.id == "import.tensor-unexpected"
    assert cause in refusal.found


def test_the_same_tensor_under_two_names(tmp_path: Path) -> None:
    model = hf_model()
    model.arrays["model.embed_tokens.copy"] = model.arrays[EMBEDDING].copy()
    refusal = refusal_of(tmp_path, model)
    assert refusal.id == "import.tensor-unexpected"
    assert "model.embed_tokens.copy" in refusal.found


def test_layers_more_or_fewer_than_the_config_says(tmp_path: Path) -> None:
    model = hf_model()
    model.config["num_hidden_layers"] = 1
    assert "2 layers, the config says 1" in refusal_of(tmp_path / "more", model).found
    model.config["num_hidden_layers"] = 3
    assert "2 layers, the config says 3" in refusal_of(tmp_path / "fewer", model).found


@pytest.mark.parametrize("dtype", ["<i4", "i1", "u1", "<i8", "<f8"])
def test_a_tensor_of_another_type(tmp_path: Path, dtype: str) -> None:
    model = hf_model()
    model.arrays[QUERY] = np.ones((8, WIDTH), dtype)
    refusal = refusal_of(tmp_path, model)
    assert refusal.id == "import.tensor-dtype"
    assert QUERY in refusal.where


def test_a_matrix_on_its_side(tmp_path: Path) -> None:
    # The same number of elements, so that a count sees nothing.
    model = hf_model()
    model.arrays[DOWN] = np.ascontiguousarray(model.arrays[DOWN].T)
    refusal = refusal_of(tmp_path, model)
    assert refusal.id == "import.tensor-shape-differs"
    assert refusal.found == f"[{INNER}, {WIDTH}]: down_proj is stored transposed"


@pytest.mark.parametrize(
    ("rows", "cause"), [(1, "one row more"), (-1, "one row less"), (8, "8 rows more")]
)
@pytest.mark.parametrize("tied", [True, False])
def test_a_vocabulary_of_another_size(tmp_path: Path, rows: int, cause: str, tied: bool) -> None:
    model = hf_model(tied=tied)
    for name in (EMBEDDING, "lm_head.weight"):
        if name in model.arrays:
            model.arrays[name] = np.ones((VOCAB + rows, WIDTH), "<f4")
    refusal = refusal_of(tmp_path, model)
    assert refusal.id == "import.tensor-shape-differs"
    assert f"embed_tokens has {cause} than the vocab_size" in refusal.found


def test_only_the_head_has_another_vocabulary(tmp_path: Path) -> None:
    model = hf_model(tied=False)
    model.arrays["lm_head.weight"] = np.ones((VOCAB + 1, WIDTH), "<f4")
    assert "lm_head has one row more" in refusal_of(tmp_path, model).found


@pytest.mark.parametrize(
    ("keys", "cause"),
    [
        ({"head_dim": 8}, "heads of head_dim 4, the config says 8"),
        ({"num_attention_heads": 4}, "2 query heads, num_attention_heads of the config says 4"),
        ({"num_key_value_heads": 2}, "1 key/value heads, num_key_value_heads of the config says 2"),
        ({"intermediate_size": 16}, "tensors of intermediate_size 12, the config says 16"),
        ({"hidden_size": 16}, "tensors of hidden_size 8, the config says 16"),
    ],
)
def test_a_config_of_another_width(tmp_path: Path, keys: dict[str, int], cause: str) -> None:
    model = hf_model()
    model.config |= keys
    refusal = refusal_of(tmp_path, model)
    assert refusal.id == "import.tensor-shape-differs"
    assert cause in refusal.found


def test_a_norm_of_two_dimensions(tmp_path: Path) -> None:
    model = hf_model()
    model.arrays[NORM] = np.ones((1, WIDTH), "<f4")
    assert "2 dimensions instead of 1" in refusal_of(tmp_path, model).found


# Values: the tensors are all there, and hold nothing a model can have.


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.nan, "1 NaN and 0 infinite of 8 values"),
        (np.inf, "0 NaN and 1 infinite of 8 values"),
        (-np.inf, "0 NaN and 1 infinite of 8 values"),
    ],
)
@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
def test_one_value_that_is_no_number(tmp_path: Path, value: float, found: str, dtype: str) -> None:
    model = hf_model(dtype=dtype)
    model.arrays[NORM][3] = value
    refusal = refusal_of(tmp_path, model)
    assert refusal.id == "import.not-finite"
    assert refusal.found == found
    assert NORM in refusal.where


@pytest.mark.parametrize("name", [EMBEDDING, NORM, QUERY, DOWN])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_a_tensor_that_was_never_filled(tmp_path: Path, name: str, zero: float) -> None:
    model = hf_model()
    model.arrays[name][...] = zero
    refusal = refusal_of(tmp_path, model)
    assert refusal.id == "import.all-zero"
    assert name in refusal.where
    model.arrays[name].flat[-1] = 1e-30
    assert check_values(read_hf_source(model.write(tmp_path))) >= 20


def test_biases_of_a_fresh_model_may_be_zero(tmp_path: Path) -> None:
    model = hf_model("qwen2")
    for name, array in model.arrays.items():
        if name.endswith(".bias"):
            array[...] = 0.0
    assert check_values(read_hf_source(model.write(tmp_path))) == len(model.arrays)
