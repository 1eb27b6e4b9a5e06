"""A model's architecture as a container spells it, and back.

Everything outside the container speaks Hugging Face's spelling; the one table between the two
stands here. An architecture is never taken on trust: what the metadata claims is compared with the
names of the tensors, and a field that is missing is refused, not filled in.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from typing import Any, cast

from apr.architecture import HF_CLASSES, Architecture, RopeScaling
from apr.container import free_keys
from apr.container.advice import WRITE_AGAIN
from apr.container.named_keys import Metadata
from apr.errors import DamagedFile, Refusal

__all__ = ["Metadata", "architecture_from_metadata", "claims_a_model", "metadata_from_architecture"]

# Rotary embeddings turn either adjacent pairs (0) or split halves; weights in Hugging Face's row
# order need the halves.
ROPE_SPLIT_HALVES = 2

_HF_TO_NAMED = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "head_dim": "head_dim",
    "max_position_embeddings": "max_position_embeddings",
    "rope_theta": "rope_theta",
    "rms_norm_eps": "rms_norm_eps",
}

_EXPERT_KEYS = ("num_experts", "num_experts_per_tok", "moe_intermediate_size")
_ENCODERS = ("bert", "roberta")


def metadata_from_architecture(
    architecture: Architecture, *, num_parameters: int, free: Mapping[str, Any]
) -> Metadata:
    """The metadata of a model; `num_parameters` is counted from its tensors, a tied head once.

    Refuses: container.parameter-count, container.metadata-key.
    """
    if num_parameters != architecture.num_parameters:
        raise Refusal(
            "container.parameter-count",
            "tensors to be written",
            found=f"{num_parameters} parameters",
            expected=f"{architecture.num_parameters}, as the architecture says",
            fix="write exactly the tensors of the architecture",
        )
    family = architecture.model_type
    fields = {named: getattr(architecture, field) for field, named in _HF_TO_NAMED.items()}
    # Floats even where a configuration spelled them as integers, so that equal values have equal
    # bytes.
    fields |= {key: float(fields[key]) for key in ("rope_theta", "rms_norm_eps")}
    metadata = Metadata(
        model_type=family,
        architecture=family,
        hf_architecture=architecture.hf_architecture,
        hf_model_type=family,
        param_count=num_parameters,
        rope_type=ROPE_SPLIT_HALVES,
        **fields,
    )
    # Written out when false too: an untied model that lost its head must not read as a tied one.
    shown: dict[str, Any] = {free_keys.TIED: architecture.tie_word_embeddings}
    if architecture.rope_scaling:
        shown[free_keys.ROPE_SCALING] = asdict(architecture.rope_scaling)
    return metadata.with_free(shown | dict(free))


def architecture_from_metadata(
    metadata: Metadata, tensor_names: Collection[str], where: object
) -> Architecture:
    """The architecture that metadata and tensor names agree on.

    A container with `tied_embeddings` and a head of its own reads as tied; whether the two are
    equal is for `require_contents` to compare.

    Refuses: container.architecture-missing, container.architecture-unsupported,
    container.architecture-mismatch, container.tie-mismatch, container.metadata-value,
    architecture.shape.
    """
    names = frozenset(tensor_names)
    _require_identity(metadata, names, where)
    fields = {field: getattr(metadata, named) for field, named in _HF_TO_NAMED.items()}
    if fields["head_dim"] is None:
        fields["head_dim"] = _head_dim(metadata)
    missing = [named for field, named in _HF_TO_NAMED.items() if fields[field] is None]
    if metadata.rope_type is None:
        missing.append("rope_type")
    if missing:
        raise _missing(where, missing)
    num_layers = sum(name.endswith(".self_attn.q_proj.weight") for name in names)
    if num_layers != metadata.num_layers:
        raise _mismatch(
            where, f"tensors of {num_layers} layers", f"num_layers={metadata.num_layers}"
        )
    return Architecture(
        model_type=metadata.hf_model_type,  # pyright: ignore[reportArgumentType]  compared above
        tie_word_embeddings=_is_tied(metadata, names, where),
        rope_scaling=_rope_scaling(metadata, where),
        **fields,
    )


def claims_a_model(metadata: Metadata, tensor_names: Collection[str]) -> bool:
    """Whether a container presents itself as a transformer, soundly or not."""
    identity = (metadata.architecture, metadata.hf_architecture, metadata.hf_model_type)
    dimensions = (metadata.hidden_size, metadata.num_layers, metadata.num_heads)
    return any(claim is not None for claim in identity + dimensions) or any(
        name.startswith("model.") or name == "lm_head.weight" for name in tensor_names
    )


def _require_identity(metadata: Metadata, names: frozenset[str], where: object) -> None:
    claims = {
        "hf_architecture": metadata.hf_architecture,
        "hf_model_type": metadata.hf_model_type,
        "architecture": metadata.architecture,
    }
    # The Rust importers leave `architecture` out at times, never the other two.
    if missing := [key for key in ("hf_architecture", "hf_model_type") if claims[key] is None]:
        raise _missing(where, missing)
    family = metadata.hf_model_type or ""
    experts = [key for key in _EXPERT_KEYS if getattr(metadata, key)]
    if family not in HF_CLASSES or metadata.rope_type not in (None, ROPE_SPLIT_HALVES) or experts:
        raise Refusal(
            "container.architecture-unsupported",
            where,
            found=f"hf_model_type={family!r}, rope_type={metadata.rope_type}"
            + "".join(f", {key}={getattr(metadata, key)}" for key in experts),
            expected=f"one of {', '.join(HF_CLASSES)}, dense, rope_type={ROPE_SPLIT_HALVES}",
            fix="only decoder-only models of these families can be built",
            upstream_id="FALSIFY-APR-PRETRAIN-ARCH-007" if family in _ENCODERS else None,
        )
    implied = {
        "hf_architecture": HF_CLASSES[family],
        "hf_model_type": family,
        "architecture": family,
    }
    for key, claim in claims.items():
        if claim not in (None, implied[key]):
            raise _mismatch(
                where, f"{key}={claim!r}", f"{implied[key]!r}, as hf_model_type implies"
            )
    shown = _family_of(names)
    # Mistral's tensors are Llama's, and so is what is computed with them.
    if shown != {"mistral": "llama"}.get(family, family):
        raise _mismatch(
            where, f"tensors of {shown}", f"tensors of {family}, as the metadata claims"
        )


def _family_of(names: frozenset[str]) -> str:
    if any(name.endswith(".self_attn.q_norm.weight") for name in names):
        return "qwen3"
    if any(name.endswith(".self_attn.q_proj.bias") for name in names):
        return "qwen2"
    if any(name.endswith(".self_attn.q_proj.weight") for name in names):
        return "llama"
    return "no family known here"


def _head_dim(metadata: Metadata) -> int | None:
    # Not a default: Hugging Face leaves the field out exactly when it is this quotient, and the
    # shapes of the projections prove it on loading.
    if not metadata.hidden_size or not metadata.num_heads:
        return None
    quotient, rest = divmod(metadata.hidden_size, metadata.num_heads)
    return None if rest else quotient


def _is_tied(metadata: Metadata, names: frozenset[str], where: object) -> bool:
    declared = metadata.free.get(free_keys.TIED)
    has_head = "lm_head.weight" in names
    is_known = declared is None or isinstance(declared, bool)
    if not is_known or (declared is False and not has_head):
        head = "with lm_head.weight" if has_head else "without lm_head.weight"
        raise Refusal(
            "container.tie-mismatch",
            where,
            found=f"{free_keys.TIED}={declared!r:.40}, {head}",
            expected="a tied model without a head of its own, or an untied one with it",
            fix="write the file again from its source",
        )
    return declared is True or not has_head


def _rope_scaling(metadata: Metadata, where: object) -> RopeScaling | None:
    stated = metadata.free.get(free_keys.ROPE_SCALING)
    if stated is None:
        return None
    names = {field.name for field in fields(RopeScaling)}
    if not isinstance(stated, dict) or set(cast(dict[str, Any], stated)) != names:
        raise DamagedFile(
            "container.metadata-value",
            f"{where}, metadata key {free_keys.ROPE_SCALING}",
            found=f"{stated!r:.80}",
            expected="an object of " + ", ".join(sorted(names)),
            fix=WRITE_AGAIN,
        )
    return RopeScaling(**cast(dict[str, Any], stated))


def _missing(where: object, keys: list[str]) -> Refusal:
    return Refusal(
        "container.architecture-missing",
        where,
        found="no " + ", ".join(keys),
        expected="every field of the architecture; none has a default",
        fix="import the model again from a source that has its config.json",
        upstream_id="FALSIFY-APR-PRETRAIN-INIT-005",
    )


def _mismatch(where: object, found: str, expected: str) -> Refusal:
    return Refusal(
        "container.architecture-mismatch",
        where,
        found=found,
        expected=expected,
        fix="the metadata was not made from these tensors; import the model again from its source",
        upstream_id="FALSIFY-INIT-ARCH-MATCH-001",
    )
