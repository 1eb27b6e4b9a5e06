"""F04: identity asserted instead of derived.

Nothing about a model has a default, and what the metadata claims is compared with the tensors.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.container_models import LLAMA, QWEN2, UNTIED, model_file

from apr.architecture import HF_CLASSES, Architecture
from apr.container.inspecting.inspection import describe
from apr.container.inspecting.validation import validate
from apr.container.metadata import architecture_from_metadata
from apr.container.named_keys import Metadata
from apr.container.reader import Container
from apr.container.stamp import Claims, stamp
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


# Amendments: a stamp is checked against the tensors, and an entry that was edited is seen.

NULLS = {"architecture": None, "hf_architecture": None, "hf_model_type": None}


def claims_of(family: str) -> Claims:
    return Claims(
        architecture=family, hf_model_type=family, hf_architecture=HF_CLASSES.get(family, family)
    )


def without_identity(path: Path, shape: Architecture, /, **keys: Any) -> Path:
    file = model_file(shape)
    file.set(**NULLS | keys)
    return file.write(path)


def refused_stamp(path: Path, claims: Claims) -> Refusal:
    before = path.read_bytes()
    with pytest.raises(Refusal) as caught:
        stamp(path, claims)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    return caught.value


@pytest.mark.parametrize("architecture", [LLAMA, QWEN2])
def test_a_model_without_identity_is_rescued_by_a_stamp(
    tmp_path: Path, architecture: Architecture
) -> None:
    path = without_identity(tmp_path / "x.apr", architecture)
    reason = describe(path)["architecture_reason"]
    assert "container.architecture-missing" in reason
    assert "no hf_architecture, hf_model_type" in reason
    stamped = stamp(path, claims_of(architecture.model_type))
    assert stamped.identity.verdict == "PASS"
    assert describe(path)["architecture"]["model_type"] == architecture.model_type
    assert validate(path).verdict == "PASS"


@pytest.mark.parametrize(
    ("architecture", "family"), [(QWEN2, "llama"), (LLAMA, "qwen2"), (UNTIED, "qwen2")]
)
def test_a_stamp_that_the_tensors_contradict(
    tmp_path: Path, architecture: Architecture, family: str
) -> None:
    path = without_identity(tmp_path / "x.apr", architecture)
    refused = refused_stamp(path, claims_of(family))
    assert refused.id == "stamp.identity-contradicts-tensors"
    assert refused.upstream_id == "FALSIFY-INIT-ARCH-MATCH-001"
    assert f"tensors of {architecture.model_type}" in refused.found
    # One field is a claim already.
    for claims in (
        Claims(hf_architecture=HF_CLASSES[family]),
        Claims(hf_model_type=family),
        Claims(architecture=family),
    ):
        assert refused_stamp(path, claims).id == "stamp.identity-contradicts-tensors"


def test_a_stamp_whose_fields_disagree(tmp_path: Path) -> None:
    path = without_identity(tmp_path / "x.apr", LLAMA)
    claims = Claims(hf_model_type="llama", hf_architecture="Qwen2ForCausalLM")
    assert refused_stamp(path, claims).id == "stamp.identity-contradicts-itself"
    # As does one field with those that the file has.
    model_file(LLAMA).write(path)
    assert refused_stamp(path, Claims(architecture="qwen2")).id == (
        "stamp.identity-contradicts-itself"
    )
    stamp(path, Claims(architecture="llama"))


def test_a_false_identity_is_not_stamped_over_but_can_be_corrected(tmp_path: Path) -> None:
    path = without_identity(
        tmp_path / "x.apr",
        QWEN2,
        architecture="llama",
        hf_model_type="llama",
        hf_architecture="LlamaForCausalLM",
    )
    refused = refused_stamp(path, Claims(license="MIT"))
    assert refused.id == "stamp.identity-contradicts-tensors"
    stamp(path, claims_of("qwen2"))
    stamp(path, Claims(license="MIT"))
    assert validate(path).verdict == "PASS"


@pytest.mark.parametrize("family", ["bert", "mamba", "Llama"])
def test_an_identity_that_cannot_be_compared_is_not_stamped(tmp_path: Path, family: str) -> None:
    path = without_identity(tmp_path / "x.apr", LLAMA)
    refused = refused_stamp(path, claims_of(family))
    assert refused.id == "stamp.identity-unknown"
    assert "LlamaForCausalLM" in refused.expected


def test_a_foreign_model_may_be_stamped_with_a_licence(tmp_path: Path) -> None:
    path = without_identity(tmp_path / "x.apr", LLAMA, hf_model_type="mamba")
    assert stamp(path, Claims(license="MIT")).identity.verdict == "UNKNOWN"


@pytest.mark.parametrize("keys", [{"num_layers": 1}, {"num_kv_heads": 2}, {"vocab_size": 12}])
def test_shapes_count_as_well_as_names(tmp_path: Path, keys: dict[str, int]) -> None:
    path = without_identity(tmp_path / "x.apr", LLAMA, **keys)
    assert refused_stamp(path, claims_of("llama")).id == "stamp.identity-contradicts-tensors"


def test_fields_that_are_missing_leave_the_names(tmp_path: Path) -> None:
    path = without_identity(tmp_path / "x.apr", LLAMA, rope_theta=None)
    assert refused_stamp(path, claims_of("qwen2")).id == "stamp.identity-contradicts-tensors"
    identity = stamp(path, claims_of("llama")).identity
    assert (identity.verdict, "no rope_theta" in identity.found) == ("PASS", True)


def test_a_model_with_tensors_left_over(tmp_path: Path) -> None:
    file = model_file(LLAMA)
    file.arrays["model.layers.0.extra.weight"] = file.arrays["model.norm.weight"]
    path = file.write(tmp_path / "x.apr")
    assert refused_stamp(path, Claims(license="MIT")).id == "stamp.identity-contradicts-tensors"


def stamped_twice(path: Path) -> list[dict[str, Any]]:
    model_file(LLAMA, free={"apr.provenance": [{"what": "checkpoint", "step": 1}]}).write(path)
    stamp(path, Claims(license="MIT"))
    stamp(path, Claims(data_source="ours"))
    with Container.open(path) as container:
        return container.metadata.free["apr.provenance"]


def verdict_of(path: Path) -> str | None:
    checks = {check.id: check.verdict for check in validate(path).checks}
    return checks.get("container.provenance")


def test_provenance_edited_by_hand_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    entries = stamped_twice(path)
    assert verdict_of(path) == "PASS"
    licence = {"license": {"from": None, "to": "ISC"}}
    for edited in (
        [entries[0] | {"step": 2}, *entries[1:]],
        [entries[0], entries[1] | {"fields": licence}, entries[2]],
        [*entries[:2], entries[2] | {"at": "2020-01-01T00:00:00+00:00"}],
        entries[1:],
        [entries[0], entries[2]],
    ):
        model_file(LLAMA, free={"apr.provenance": edited}).write(path)
        assert verdict_of(path) == "FAIL"
        assert validate(path).verdict == "FAIL"
        refused = refused_stamp(path, Claims(license="MIT"))
        assert (refused.id, refused.exit_code) == ("stamp.provenance-edited", 4)


def test_provenance_that_nobody_hashed_is_no_finding(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    for entries in ([], [{"what": "checkpoint"}]):
        model_file(LLAMA, free={"apr.provenance": entries}).write(path)
        assert verdict_of(path) is None
        assert validate(path).verdict == "PASS"


def test_a_wider_model_of_the_same_family_is_no_contradiction(tmp_path: Path) -> None:
    wide = replace(LLAMA, hidden_size=16, num_hidden_layers=3)
    path = without_identity(tmp_path / "x.apr", wide)
    assert stamp(path, claims_of("llama")).identity.verdict == "PASS"
