"""F04: identity asserted instead of derived, in a Hugging Face directory.

No family is assumed: config.json says which it is, and the tensors bear it out or the model is
refused.
"""

from pathlib import Path
from typing import Any

import pytest
from tests.hf_models import CLASSES, hf_model

from apr.convert.huggingface.source import read_hf_source
from apr.errors import Refusal


def refusal_of(tmp_path: Path, family: str, keys: dict[str, Any], drop: str = "") -> Refusal:
    model = hf_model(family)
    model.config = {key: value for key, value in model.config.items() if key != drop} | keys
    with pytest.raises(Refusal) as caught:
        read_hf_source(model.write(tmp_path))
    return caught.value


@pytest.mark.parametrize("family", CLASSES)
def test_the_harmless_twin(tmp_path: Path, family: str) -> None:
    assert read_hf_source(hf_model(family).write(tmp_path)).architecture.model_type == family


@pytest.mark.parametrize("key", ["model_type", "architectures"])
@pytest.mark.parametrize("family", CLASSES)
def test_a_config_that_does_not_say_what_it_is(tmp_path: Path, family: str, key: str) -> None:
    refusal = refusal_of(tmp_path, family, {}, drop=key)
    assert refusal.id == "import.config-missing"
    assert refusal.found == f"no {key}"


def test_a_class_that_contradicts_the_family(tmp_path: Path) -> None:
    refusal = refusal_of(tmp_path, "qwen2", {"architectures": ["LlamaForCausalLM"]})
    assert refusal.id == "import.architecture-class"


@pytest.mark.parametrize(
    ("stamped", "tensors", "cause"),
    [
        ("llama", "qwen2", "biases of Qwen2 in a model whose config says llama"),
        ("mistral", "qwen2", "biases of Qwen2 in a model whose config says mistral"),
        ("qwen2", "llama", "no biases, as Llama has none, in a model whose config says qwen2"),
        ("llama", "qwen3", "query and key norms of Qwen3 in a model whose config says llama"),
        ("qwen3", "llama", "no query and key norms, as Llama has none"),
    ],
)
def test_a_family_that_the_tensors_do_not_bear_out(
    tmp_path: Path, stamped: str, tensors: str, cause: str
) -> None:
    stamp = {
        "model_type": stamped,
        "architectures": [CLASSES[stamped]],
        "sliding_window": None,
    }
    refusal = refusal_of(tmp_path, tensors, stamp)
    assert refusal.id in ("import.tensor-unexpected", "import.tensor-missing")
    assert cause in refusal.found
