"""The shape of a model, in Hugging Face's spelling, and everything that follows from it.

Parameter names and shapes are listed here once; parameter counts, FLOPs, memory, a strict
load and the container's contents are all derived from that list. Nothing here loads torch.

Shape letters, used all over the project: B batch, T positions, D hidden_size, H query heads,
K key/value heads, E head_dim, F intermediate_size, V vocab_size, L layers.
"""

from dataclasses import dataclass, fields
from math import prod
from sys import float_info
from typing import Any, Literal, get_args

from apr.errors import Refusal, UsageRefusal

ModelType = Literal["llama", "mistral", "qwen2", "qwen3"]
Convention = Literal["conventional", "causal"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)
"""Two ways of counting the FLOPs of attention: see `Architecture.training_flops_per_token`."""
HF_CLASSES: dict[str, str] = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_LARGEST_COUNT = (1 << 40) - 1


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How Llama 3.1 stretches its rotary frequencies over a longer context.

    Source: the `llama3` entry of Hugging Face's rotary embeddings. Waves that turn less than
    `low_freq_factor` times within the original context are slowed by `factor`, those that turn
    more than `high_freq_factor` times are kept, and between the two the slowing fades in.

    Refuses: architecture.shape.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int
    """Longest sequence before the stretching, in tokens."""

    def __post_init__(self) -> None:
        """Refuse a scaling that is none."""
        for field in fields(self):
            value = getattr(self, field.name)
            is_number = type(value) is int or (type(value) is float and field.type is float)
            # An integer in JSON may be larger than any float.
            largest = float_info.max if field.type is float else _LARGEST_COUNT
            if not is_number or not 0 < value <= largest:
                _refuse_shape(f"rope_scaling.{field.name}", value, "a positive finite number")
        if not self.low_freq_factor < self.high_freq_factor:
            _refuse_shape(
                "rope_scaling.high_freq_factor",
                self.high_freq_factor,
                f"more than low_freq_factor ({self.low_freq_factor})",
            )

    def to_hf_config(self) -> dict[str, Any]:
        """The object as Hugging Face's config.json spells it."""
        return {"rope_type": "llama3"} | {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One decoder-only transformer: what a checkpoint's tensors must be, exactly.

    Refuses: architecture.family, architecture.shape.
    """

    model_type: ModelType
    """Family: `llama`; `mistral`, where it is Llama's mathematics; `qwen2`, which adds biases to
    the query, key and value projections; `qwen3`, which norms every query and key head instead."""
    vocab_size: int
    """Rows of the embedding; at least the number of token ids."""
    hidden_size: int
    """Width of the residual stream."""
    intermediate_size: int
    """Width inside the gated feed-forward block."""
    num_hidden_layers: int
    """Number of transformer blocks."""
    num_attention_heads: int
    """Query heads."""
    num_key_value_heads: int
    """Key/value heads; divides the query heads."""
    head_dim: int
    """Width of one head; even, because rotary embeddings turn pairs."""
    max_position_embeddings: int
    """Longest sequence the model is meant for, in tokens."""
    rope_theta: float
    """Base of the rotary frequencies."""
    rms_norm_eps: float
    """Added under the root of every RMS norm."""
    tie_word_embeddings: bool
    """Whether the output head is the embedding matrix; then it is stored once."""
    rope_scaling: RopeScaling | None = None
    """How the rotary frequencies are stretched; None leaves them as `rope_theta` makes them."""

    def __post_init__(self) -> None:
        """Refuse a shape no such model can have."""
        if self.model_type not in get_args(ModelType):
            raise Refusal(
                "architecture.family",
                "model_type",
                found=repr(self.model_type),
                expected="one of " + ", ".join(get_args(ModelType)),
                fix="only decoder-only models of these families are supported",
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and (type(value) is not int or not 0 < value <= _LARGEST_COUNT):
                _refuse_shape(field.name, value, "a positive integer")
            if field.type is float and not 0 < value < float("inf"):
                _refuse_shape(field.name, value, "a positive finite number")
        if self.num_attention_heads % self.num_key_value_heads:
            _refuse_shape(
                "num_key_value_heads",
                self.num_key_value_heads,
                f"a divisor of num_attention_heads ({self.num_attention_heads})",
            )
        if self.rope_theta < 1:
            _refuse_shape("rope_theta", self.rope_theta, "at least 1, so that frequencies fall")
        if self.head_dim % 2:
            _refuse_shape("head_dim", self.head_dim, "an even number")

    @property
    def attention_bias(self) -> bool:
        """Whether the query, key and value projections have biases."""
        return self.model_type == "qwen2"

    @property
    def has_query_key_norm(self) -> bool:
        """Whether every query and key head is normed before it is turned."""
        return self.model_type == "qwen3"

    @property
    def query_width(self) -> int:
        """Numbers of all query heads side by side."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_width(self) -> int:
        """Numbers of all key heads side by side, and of all value heads."""
        return self.num_key_value_heads * self.head_dim

    @property
    def hf_architecture(self) -> str:
        """The Hugging Face class that computes the same function."""
        return HF_CLASSES[self.model_type]

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter by its Hugging Face name, in model order; a tied head is not listed."""
        d, f = self.hidden_size, self.intermediate_size
        q, kv = self.query_width, self.key_value_width
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab_size, d)}
        for layer in range(self.num_hidden_layers):
            block: dict[str, tuple[int, ...]] = {"input_layernorm.weight": (d,)}
            for name, width in (("q", q), ("k", kv), ("v", kv)):
                block[f"self_attn.{name}_proj.weight"] = (width, d)
                if self.attention_bias:
                    block[f"self_attn.{name}_proj.bias"] = (width,)
            if self.has_query_key_norm:
                block["self_attn.q_norm.weight"] = (self.head_dim,)
                block["self_attn.k_norm.weight"] = (self.head_dim,)
            block |= {
                "self_attn.o_proj.weight": (d, q),
                "post_attention_layernorm.weight": (d,),
                "mlp.gate_proj.weight": (f, d),
                "mlp.up_proj.weight": (f, d),
                "mlp.down_proj.weight": (d, f),
            }
            shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in block.items()}
        shapes["model.norm.weight"] = (d,)
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, d)
        return shapes

    @property
    def num_parameters(self) -> int:
        """Exact number of parameters; a tied embedding counts once."""
        return sum(prod(shape) for shape in self.parameter_shapes().values())

    def num_matmul_parameters(self) -> int:
        """Parameters that multiply every token: all matrices, the head included, no lookup."""
        matrices = sum(
            prod(shape)
            for name, shape in self.parameter_shapes().items()
            if len(shape) == 2 and name != "model.embed_tokens.weight"
        )
        return matrices + (self.vocab_size * self.hidden_size if self.tie_word_embeddings else 0)

    def training_flops_per_token(self, sequence_length: int, *, convention: Convention) -> int:
        """FLOPs of forward and backward for one token of a full sequence.

        `conventional` counts attention as if every position saw every other, `causal` the half
        that a causal model computes. Published utilisation figures use either; always say which.

        Source: 6 per matrix parameter, plus 12 (or 6) times L times H*E times T.
        """
        per_position = {"conventional": 12, "causal": 6}[convention]
        attention = per_position * self.num_hidden_layers * self.query_width * sequence_length
        return 6 * self.num_matmul_parameters() + attention

    def training_state_bytes(self) -> int:
        """Memory of fp32 weights, gradients and both AdamW moments; activations come on top."""
        return 16 * self.num_parameters

    def to_hf_config(self) -> dict[str, Any]:
        """The fields as Hugging Face's config.json spells them.

        What a class of theirs would otherwise fill in with another default is written out.
        """
        config = {field.name: getattr(self, field.name) for field in fields(self)}
        config["rope_scaling"] = self.rope_scaling.to_hf_config() if self.rope_scaling else None
        neutral = {
            "llama": {"attention_bias": False, "mlp_bias": False},
            "mistral": {"sliding_window": None},
            "qwen2": {"use_sliding_window": False},
            "qwen3": {"attention_bias": False, "use_sliding_window": False},
        }
        return (
            config
            | {"architectures": [self.hf_architecture], "hidden_act": "silu"}
            | neutral[self.model_type]
        )


def _refuse_shape(field: str, value: object, expected: str) -> None:
    raise Refusal(
        "architecture.shape",
        field,
        found=repr(value),
        expected=expected,
        fix="correct the field in the configuration the model came from",
    )


_TIED_SMALL: dict[str, Any] = {
    "model_type": "llama",
    "max_position_embeddings": 2048,
    "rope_theta": 10_000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}

# A vocab_size of 0 means: taken from the tokenizer.
_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": _TIED_SMALL
    | {
        "vocab_size": 0,
        "hidden_size": 64,
        "intermediate_size": 176,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    },
    "demo": _TIED_SMALL
    | {
        "vocab_size": 0,
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 32,
    },
    # The Rust tools' from-scratch model; untied, which is what its parameter band asserts.
    "llama-370m": {
        "model_type": "llama",
        "vocab_size": 50_257,
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "max_position_embeddings": 4096,
        "rope_theta": 10_000.0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
    },
    "qwen2-0.5b": {
        "model_type": "qwen2",
        "vocab_size": 151_936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 32_768,
        "rope_theta": 1_000_000.0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
    },
}

# Published models that differ from one above in a few fields.
_PRESETS.update(
    {
        "qwen2-1.5b": _PRESETS["qwen2-0.5b"]
        | {
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "head_dim": 128,
            "max_position_embeddings": 131_072,
        },
        "qwen2-7b": _PRESETS["qwen2-0.5b"]
        | {
            "vocab_size": 152_064,
            "hidden_size": 3584,
            "intermediate_size": 18_944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "max_position_embeddings": 131_072,
            "tie_word_embeddings": False,
        },
        "qwen3-0.6b": _PRESETS["qwen2-0.5b"]
        | {
            "model_type": "qwen3",
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 40_960,
        },
        "smollm2-135m": _TIED_SMALL
        | {
            "vocab_size": 49_152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "head_dim": 64,
            "max_position_embeddings": 8192,
            "rope_theta": 100_000.0,
        },
        "llama-3.2-1b": _TIED_SMALL
        | {
            "vocab_size": 128_256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "max_position_embeddings": 131_072,
            "rope_theta": 500_000.0,
            "rope_scaling": RopeScaling(
                factor=32.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=8192,
            ),
        },
    }
)
PRESET_NAMES = tuple(_PRESETS)


def preset(name: str, *, tokenizer_vocab_size: int, vocab_size: int | None = None) -> Architecture:
    """A named architecture; `tiny` and `demo` take their vocabulary from the tokenizer.

    `vocab_size` sizes the model's rows whatever the preset says.

    Refuses: config.unknown-preset.
    """
    if name not in _PRESETS:
        raise UsageRefusal(
            "config.unknown-preset",
            "--arch",
            found=repr(name),
            expected="one of " + ", ".join(PRESET_NAMES),
            fix="choose one of these presets",
        )
    values = _PRESETS[name]
    rows: int = vocab_size or values["vocab_size"] or tokenizer_vocab_size
    resolved: dict[str, Any] = {**values, "vocab_size": rows}
    return Architecture(**resolved)
