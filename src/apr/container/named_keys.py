"""The keys a container's metadata may hold: named ones with types, free ones kept as they are.

The order of the fields of `Metadata` is the order of the bytes. Three provenance keys are written
as null when nobody set them, so that their absence is visible; every other unset key is left out.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apr.container.metadata_json import ALIASES, METADATA_LIMIT_BYTES, with_named_keys
from apr.errors import DamagedFile, Refusal

_WRITTEN_AS_NULL = ("license", "data_source", "data_license")

_F32_MAX = 3.4028234663852886e38
_Unsigned = Annotated[int, Field(ge=0, lt=1 << 64)]
_U32 = Annotated[int, Field(ge=0, lt=1 << 32)]
_U8 = Annotated[int, Field(ge=0, lt=1 << 8)]
# The Rust tools hold these as f32. JSON carries the shortest text of our own float, so a value
# that only Python touches comes back to the bit.
_Float = Annotated[float, Field(ge=-_F32_MAX, le=_F32_MAX)]


class _Strict(BaseModel):
    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )


class Quantization(_Strict):
    """How the tensors were quantised."""

    quant_type: str
    bits: _U8
    block_size: _Unsigned | None = None
    symmetric: bool


class Sharding(_Strict):
    """Which of several files this one is."""

    shard_count: _Unsigned
    shard_index: _Unsigned
    total_size: _Unsigned
    pattern: str | None = None


class SpecialTokens(_Strict):
    """Texts of control tokens."""

    bos_token: str | None = None
    eos_token: str | None = None
    unk_token: str | None = None
    pad_token: str | None = None
    im_start_token: str | None = None
    im_end_token: str | None = None


class Metadata(BaseModel):
    """A container's metadata: typed named keys, and free keys kept as they are."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="allow", allow_inf_nan=False, protected_namespaces=()
    )

    model_type: str = ""
    name: str | None = None
    description: str | None = None
    author: str | None = None
    license: str | None = None
    data_source: str | None = None
    data_license: str | None = None
    version: str | None = None
    source: str | None = None
    original_format: str | None = None
    created_at: str | None = None
    total_size: _Unsigned = 0
    param_count: _Unsigned = 0
    quantization: Quantization | None = None
    sharding: Sharding | None = None
    chat_template: str | None = None
    chat_format: str | None = None
    special_tokens: SpecialTokens | None = None
    architecture: str | None = None
    hf_architecture: str | None = None
    hf_model_type: str | None = None
    hidden_size: _Unsigned | None = None
    num_layers: _Unsigned | None = None
    num_heads: _Unsigned | None = None
    num_kv_heads: _Unsigned | None = None
    vocab_size: _Unsigned | None = None
    intermediate_size: _Unsigned | None = None
    max_position_embeddings: _Unsigned | None = None
    rope_theta: _Float | None = None
    rope_type: _U32 | None = None
    rms_norm_eps: _Float | None = None
    head_dim: _Unsigned | None = None
    num_experts: _Unsigned | None = None
    num_experts_per_tok: _Unsigned | None = None
    moe_intermediate_size: _Unsigned | None = None

    @classmethod
    def from_object(cls, raw: Mapping[str, Any], *, where: str) -> "Metadata":
        """The metadata that a container's JSON object spells, aliases and nulls included.

        Refuses: container.metadata-alias, container.metadata-value.
        """
        try:
            return cls.model_validate(with_named_keys(raw, where=where))
        except ValidationError as err:
            first = err.errors(include_url=False)[0]
            raise DamagedFile(
                "container.metadata-value",
                f"{where}, metadata key {'.'.join(str(part) for part in first['loc'])}",
                found=f"{first['input']!r:.60}",
                expected=first["msg"],
                fix="write the file again from its source",
            ) from err

    @property
    def free(self) -> dict[str, Any]:
        """The keys that the format gives no meaning, a copy."""
        return dict(self.model_extra or {})

    def with_free(self, keys: Mapping[str, Any]) -> "Metadata":
        """The same metadata with some free keys added or replaced.

        Refuses: container.metadata-key.
        """
        taken = {
            *type(self).model_fields,
            *(alias for group in ALIASES.values() for alias in group),
        }
        if shadowing := sorted(taken.intersection(keys)):
            raise Refusal(
                "container.metadata-key",
                "free metadata keys",
                found=", ".join(shadowing),
                expected="keys that are neither named in the format nor aliases of named ones",
                fix="set the named field instead; a second spelling wipes all metadata in Rust",
            )
        return self.model_copy(update=dict(keys))

    def spelled(self) -> dict[str, Any]:
        """The object as it is written: named keys in order, then free keys by name."""
        named = self.model_dump(include=set(type(self).model_fields))
        kept = {
            key: value
            for key, value in named.items()
            if value is not None or key in _WRITTEN_AS_NULL
        }
        return kept | dict(sorted(self.free.items()))

    def encode(self) -> bytes:
        """The compact JSON of the metadata section, without padding.

        Refuses: container.metadata-value, container.section-too-large.
        """
        try:
            text = json.dumps(
                self.spelled(), separators=(",", ":"), ensure_ascii=False, allow_nan=False
            )
            data = text.encode("utf-8")
        except (ValueError, TypeError, RecursionError) as err:
            raise Refusal(
                "container.metadata-value",
                "metadata to be written",
                found=str(err),
                expected="values that strict JSON can hold",
                fix="leave out the value, or replace it by one that is finite and plain",
            ) from err
        if len(data) > METADATA_LIMIT_BYTES:
            raise Refusal(
                "container.section-too-large",
                "metadata to be written",
                found=f"{len(data)} bytes",
                expected=f"at most {METADATA_LIMIT_BYTES}",
                fix="store less in free keys",
            )
        return data
