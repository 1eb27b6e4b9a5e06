"""From the fields of a GGUF file to an architecture: every key is read, harmless, or refused.

A default stands in for a key only where llama.cpp, which defines the format, has the same one,
and then a note says so.
"""

from dataclasses import dataclass

from apr.architecture import Architecture, ModelType
from apr.convert.gguf.metadata import Metadata
from apr.errors import Refusal

FAMILIES: dict[str, ModelType] = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""What `general.architecture` may say, and what it is called here."""

ADJACENT = "llama"
"""The family whose query and key rows are in the order of adjacent pairs."""

_OTHER_FAMILIES = {
    "bert": "an encoder",
    "modern-bert": "an encoder",
    "nomic-bert": "an encoder",
    "jina-bert-v2": "an encoder",
    "t5": "an encoder and a decoder",
    "t5encoder": "an encoder",
    "mamba": "a state space model",
    "mamba2": "a state space model",
    "rwkv6": "a recurrent model",
    "rwkv7": "a recurrent model",
    "qwen2moe": "a mixture of experts",
    "qwen3moe": "a mixture of experts",
    "qwen2vl": "a model that also reads images",
    "qwen3vl": "a model that also reads images",
    "llama4": "a mixture of experts",
    "deepseek2": "a mixture of experts",
    "gpt-oss": "a mixture of experts",
    "clip": "an encoder of images, the other half of a model",
    "mmproj": "an encoder of images, the other half of a model",
    "gpt2": "a model without rotary embeddings",
    "gemma": "a model with other norms",
    "gemma2": "a model with other norms",
    "gemma3": "a model with other norms",
    "phi3": "a model with joined projections",
}

# Read below, by name after the family's prefix.
_READ = {
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.layer_norm_rms_epsilon",
    "attention.key_length",
    "attention.value_length",
    "rope.freq_base",
    "rope.dimension_count",
}
# Keys that change nothing while they have one of these values, and what they mean otherwise.
_NEUTRAL: dict[str, tuple[tuple[object, ...], str]] = {
    "expert_count": ((0,), "experts"),
    "expert_used_count": ((0,), "experts"),
    "attention.sliding_window": ((0,), "attention in a sliding window"),
    "attention.causal": ((True,), "attention to what comes after"),
    "attention.scale": ((0.0,), "another scale of attention"),
    "rope.scaling.type": (("none", "linear"), "stretched rotary frequencies"),
    "rope.scaling.factor": ((0.0, 1.0), "stretched rotary frequencies"),
    "rope.scale_linear": ((0.0, 1.0), "stretched rotary frequencies"),
    "rope.scaling.attn_factor": ((1.0,), "another scale of attention"),
    "pooling_type": ((0,), "pooled outputs, not tokens"),
    "tensor_data_layout": (("Meta AI original pth",), "another order of weights"),
}
# They say for which context a stretching was made, and there is none.
_WITHOUT_EFFECT = ("rope.scaling.original_context_length", "rope.scaling.finetuned")
_LLAMA_CPP_ROPE_THETA = 10_000.0


@dataclass(frozen=True)
class Hyperparameters:
    """What the fields say of the shape; the tensors say the rest."""

    model_type: ModelType
    context_length: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float
    rms_norm_eps: float
    vocab_size: int | None
    """Rows of the embedding, where a field names them."""
    notes: tuple[str, ...]

    def architecture(self, *, vocab_size: int, is_tied: bool) -> Architecture:
        """The architecture without rotary scaling, once the tensors have said what no field does.

        Refuses: architecture.shape.
        """
        return Architecture(
            model_type=self.model_type,
            vocab_size=vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            num_key_value_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            max_position_embeddings=self.context_length,
            rope_theta=self.rope_theta,
            rms_norm_eps=self.rms_norm_eps,
            tie_word_embeddings=is_tied,
        )


def read_hyperparameters(metadata: Metadata) -> Hyperparameters:
    """What the fields say, once nothing in them asks for other mathematics.

    Refuses: gguf.family, gguf.not-a-model, gguf.split, gguf.key-missing, gguf.key-type,
    gguf.key-unsupported, gguf.layers-differ, gguf.head-dim.
    """
    _require_whole_model(metadata)
    slug = _family(metadata)
    _require_no_other_mathematics(metadata, slug)
    notes: list[str] = []
    if slug == "llama":
        notes.append(
            "GGUF calls Mistral and Llama by one name, llama; their mathematics is the same here"
        )
    num_heads = metadata.integer(f"{slug}.attention.head_count")
    hidden_size = metadata.integer(f"{slug}.embedding_length")
    if f"{slug}.attention.head_count_kv" not in metadata:
        notes.append("no attention.head_count_kv: every query head has its own keys, by definition")
    if f"{slug}.rope.freq_base" not in metadata:
        notes.append(f"no rope.freq_base: {_LLAMA_CPP_ROPE_THETA:g}, by llama.cpp's definition")
    return Hyperparameters(
        model_type=FAMILIES[slug],
        context_length=metadata.integer(f"{slug}.context_length"),
        hidden_size=hidden_size,
        intermediate_size=metadata.integer(f"{slug}.feed_forward_length"),
        num_layers=metadata.integer(f"{slug}.block_count"),
        num_heads=num_heads,
        num_kv_heads=metadata.integer(f"{slug}.attention.head_count_kv", num_heads),
        head_dim=_head_dim(metadata, slug, hidden_size, num_heads),
        rope_theta=metadata.number(f"{slug}.rope.freq_base", _LLAMA_CPP_ROPE_THETA),
        rms_norm_eps=metadata.number(f"{slug}.attention.layer_norm_rms_epsilon"),
        vocab_size=metadata.integer(f"{slug}.vocab_size", 0) or None,
        notes=tuple(notes),
    )


def _require_whole_model(metadata: Metadata) -> None:
    kind = metadata.text("general.type")
    if kind not in (None, "model"):
        raise Refusal(
            "gguf.not-a-model",
            metadata.where,
            found=f"general.type {kind}",
            expected="a whole model",
            fix="name the file of the model itself",
        )
    parts = metadata.integer("split.count", 0)
    if parts > 1:
        raise Refusal(
            "gguf.split",
            metadata.where,
            found=f"one of {parts} files of a model",
            expected="a model in one file",
            fix="join them: llama-gguf-split --merge FIRST-FILE OUTPUT",
        )


def _family(metadata: Metadata) -> str:
    metadata.require("general.architecture")
    slug = metadata.text("general.architecture") or ""
    if slug in FAMILIES:
        return slug
    meaning = f", {_OTHER_FAMILIES[slug]}" if slug in _OTHER_FAMILIES else ""
    raise Refusal(
        "gguf.family",
        metadata.where,
        found=f"general.architecture {slug!r:.60}{meaning}",
        expected="one of " + ", ".join(FAMILIES),
        fix="use a decoder-only model of one of these families",
    )


def _require_no_other_mathematics(metadata: Metadata, slug: str) -> None:
    prefix = f"{slug}."
    for key, field in metadata.fields.items():
        if not key.startswith(prefix):
            continue
        name = key.removeprefix(prefix)
        if name in _READ or name in _WITHOUT_EFFECT:
            continue
        neutral, meaning = _NEUTRAL.get(name, ((), "a key that apr does not know"))
        if not any(_is_same(field.value, each) for each in neutral):
            raise Refusal(
                "gguf.key-unsupported",
                f"{metadata.where}, field {key}",
                found=f"{field.value!r:.80}: {meaning}",
                expected="nothing" + "".join(f", or {each!r}" for each in neutral),
                fix="use a model without it: apr would compute another function",
            )


def _is_same(value: object, neutral: object) -> bool:
    if not isinstance(value, int | float | str):
        return False
    return isinstance(value, bool) == isinstance(neutral, bool) and value == neutral


def _head_dim(metadata: Metadata, slug: str, hidden_size: int, num_heads: int) -> int:
    whole = hidden_size // num_heads if num_heads > 0 and hidden_size % num_heads == 0 else 0
    key_length = metadata.integer(f"{slug}.attention.key_length", whole)
    value_length = metadata.integer(f"{slug}.attention.value_length", whole)
    turned = metadata.integer(f"{slug}.rope.dimension_count", key_length)
    if key_length == value_length == turned and key_length > 0:
        return key_length
    raise Refusal(
        "gguf.head-dim",
        metadata.where,
        found=f"keys of {key_length}, values of {value_length}, of which {turned} are turned",
        expected="one width of a head, all of it turned",
        fix="use a model whose heads are turned whole: apr would compute another function",
    )
