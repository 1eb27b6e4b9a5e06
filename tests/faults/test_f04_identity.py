"""F04: identity asserted instead of derived.

Nothing about a model has a default, and what the metadata claims is compared with the tensors.
"""

from pathlib import Path
from typing import Any

import pytest
from tests.container_models import LLAMA, QWEN2, UNTIED, model_file

from apr.architecture import Architecture
from apr.container.metadata import architecture_from_metadata
from apr.container.named_keys import Metadata
from apr.container.validation import validate
from apr.errors import Refusal

REQUIRED = (
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
)


def changed(architecture: Architecture, /, **keys: Any) -> Metadata:
    file = model_file(architecture)
    file.set(**keys)
    return file.metadata


def refusal_of(metadata: Metadata, architecture: Architecture) -> Refusal:
    with pytest.raises(Refusal) as caught:
        architecture_from_metadata(metadata, architecture.parameter_shapes(), "x.apr")
    assert caught.value.exit_code == 5
    assert caught.value.where == "x.apr"
    return caught.value


@pytest.mark.parametrize("architecture", [LLAMA, QWEN2, UNTIED])
def test_the_harmless_twin(architecture: Architecture) -> None:
    metadata = changed(architecture)
    names = architecture.parameter_shapes()
    assert architecture_from_metadata(metadata, names, "x.apr") == architecture
    without_slug = changed(architecture, architecture=None)
    assert architecture_from_metadata(without_slug, names, "x.apr") == architecture


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_field_is_refused_by_name(key: str) -> None:
    refusal = refusal_of(changed(LLAMA, **{key: None}), LLAMA)
    assert refusal.id == "container.architecture-missing"
    assert refusal.found == f"no {key}"
    assert refusal.upstream_id == "FALSIFY-APR-PRETRAIN-INIT-005"


def test_all_missing_fields_are_named_at_once() -> None:
    refusal = refusal_of(changed(LLAMA, rope_theta=None, vocab_size=None), LLAMA)
    assert refusal.found == "no vocab_size, rope_theta"


def test_a_head_width_that_cannot_be_derived_is_missing() -> None:
    refusal = refusal_of(changed(LLAMA, head_dim=None, num_heads=3), LLAMA)
    assert refusal.found == "no head_dim"


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"hf_architecture": "Qwen2ForCausalLM"}, "hf_architecture='Qwen2ForCausalLM'"),
        ({"architecture": "qwen2"}, "architecture='qwen2'"),
        ({"hf_model_type": "qwen2"}, "hf_architecture='LlamaForCausalLM'"),
        (
            {
                "hf_model_type": "qwen2",
                "hf_architecture": "Qwen2ForCausalLM",
                "architecture": "qwen2",
            },
            "tensors of llama",
        ),
    ],
)
def test_a_stamp_that_the_tensors_do_not_bear_out(keys: dict[str, str], found: str) -> None:
    refusal = refusal_of(changed(LLAMA, **keys), LLAMA)
    assert refusal.id == "container.architecture-mismatch"
    assert refusal.upstream_id == "FALSIFY-INIT-ARCH-MATCH-001"
    assert refusal.found == found


def test_llama_stamped_onto_qwen2_tensors(tmp_path: Path) -> None:
    file = model_file(QWEN2)
    llama = {"hf_model_type": "llama", "hf_architecture": "LlamaForCausalLM"}
    file.set(architecture="llama", **llama)
    assert refusal_of(file.metadata, QWEN2).id == "container.architecture-mismatch"
    assert validate(file.write(tmp_path / "x.apr")).verdict == "FAIL"


@pytest.mark.parametrize(
    ("keys", "upstream_id"),
    [
        ({"hf_model_type": "mamba"}, None),
        ({"hf_model_type": "bert"}, "FALSIFY-APR-PRETRAIN-ARCH-007"),
        ({"rope_type": 0}, None),
        ({"num_experts": 8}, None),
    ],
)
def test_a_model_that_cannot_be_built(
    tmp_path: Path, keys: dict[str, Any], upstream_id: str | None
) -> None:
    file = model_file(LLAMA)
    file.set(**keys)
    refusal = refusal_of(file.metadata, LLAMA)
    assert refusal.id == "container.architecture-unsupported"
    assert refusal.upstream_id == upstream_id
    # Not known is not wrong; and UNKNOWN blocks.
    assert validate(file.write(tmp_path / "x.apr")).verdict == "UNKNOWN"


def test_tensors_of_another_family(tmp_path: Path) -> None:
    names = {*LLAMA.parameter_shapes(), "model.layers.0.self_attn.q_norm.weight"}
    with pytest.raises(Refusal) as caught:
        architecture_from_metadata(changed(LLAMA), names, "x.apr")
    assert caught.value.found == "tensors of qwen3"
    with pytest.raises(Refusal) as caught:
        architecture_from_metadata(changed(LLAMA), ["blk.0.attn_q.weight"], "x.apr")
    assert caught.value.found == "tensors of no family known here"


def test_metadata_removed_from_a_model_blocks(tmp_path: Path) -> None:
    # F41: upstream skips its gate when there is no metadata.
    file = model_file(LLAMA)
    file.metadata = Metadata()
    validation = validate(file.write(tmp_path / "x.apr"))
    assert validation.verdict == "FAIL"
    failed = [check for check in validation.checks if check.verdict != "PASS"]
    assert [check.id for check in failed] == ["container.model"]
    assert "container.architecture-missing" in failed[0].found
