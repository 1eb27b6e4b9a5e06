"""A model as another format hands it over: its shape, its tensors, and what else it says.

Each tensor is there twice. `tensors` is what goes into a container, under Hugging Face's names and
with split-half rows; `stored` is what the source holds, read by nothing but the reference. Where
they differ, the conversion did it, and the proof compares what the two compute.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal

from apr.architecture import Architecture
from apr.tokenizer.tokenizer import Tokenizer

CHUNK_BYTES = 8 << 20
"""How much of a tensor is in memory at a time; whole elements and whole blocks of any format."""


@dataclass(frozen=True)
class SourceTensor:
    """One tensor, read in pieces and as often as it is asked for."""

    name: str
    dtype: str
    """As a container names it (`f32`, `bf16`, `q4_k`, ...), or `q8_0`, which only GGUF has."""
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[memoryview]]
    """The stored bytes from the first to the last, in pieces of whole elements or blocks."""

    @property
    def num_elements(self) -> int:
        """Number of values."""
        return prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class ReferenceConfig:
    """What a forward pass must know, read from the source apart from `Architecture`.

    Biases, query and key norms, and an output head of its own are not in here: the reference uses
    them where the source has such tensors.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: Mapping[str, float] | None
    """Llama 3's `factor`, `low_freq_factor`, `high_freq_factor` and
    `original_max_position_embeddings`, or None."""
    rope_factors: tuple[float, ...] | None = None
    """Divisors of the frequencies, one per pair, where a source stores them instead (GGUF)."""
    rotary_pairs: Literal["halves", "adjacent"]
    """Which two elements of a head, as `stored` orders its rows, are turned together."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model that was read from files and whose tensors are exactly its architecture's."""

    where: Path
    format: Literal["safetensors", "gguf", "apr"]
    architecture: Architecture
    tensors: Mapping[str, SourceTensor]
    """By Hugging Face's names: those of `architecture.parameter_shapes()`, no more and no fewer."""
    stored: Mapping[str, SourceTensor]
    """The same tensors with their rows as the source orders them, for the reference."""
    reference: ReferenceConfig
    tokenizer: Tokenizer | None
    hf_config: Mapping[str, Any]
    """What config.json says beyond the architecture (ids of special tokens, initial deviation), as
    Hugging Face spells it."""
    generation_config: Mapping[str, Any] | None
    chat_template: str | None
    said: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the source says of origin, licence and name, under the container's names of these."""
    pretraining_tokens: int | None = None
    provenance: tuple[Mapping[str, Any], ...] = ()
    """What a container says was done to the model before; only appended to."""
    files: tuple[Path, ...]
    """Every file that was read, for the record of what a container was made from."""
    notes: tuple[str, ...] = ()
    """What a person should know and no check refuses."""
