"""Tiny models in GGUF files, written by gguf-py and not by us, with the faults that tests plant.

gguf-py is llama.cpp's own writer and reader: what it writes is the format, and what it reads of
ours is what others read.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from tests import tokenizer_files

from apr.architecture import Architecture, RopeScaling
from apr.convert.source import SourceTensor

LLAMA = Architecture(
    model_type="llama",
    vocab_size=262,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=256,
    rope_theta=10_000.0,
    rms_norm_eps=1e-6,
    tie_word_embeddings=True,
)
QWEN2 = replace(LLAMA, model_type="qwen2", rope_theta=1_000_000.0)
QWEN3 = replace(LLAMA, model_type="qwen3", head_dim=16)
UNTIED = replace(LLAMA, tie_word_embeddings=False)
LLAMA3 = replace(
    LLAMA,
    head_dim=64,
    rope_theta=500_000.0,
    rope_scaling=RopeScaling(
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    ),
)
FAMILIES = {"llama": LLAMA, "qwen2": QWEN2, "qwen3": QWEN3, "untied": UNTIED, "llama3": LLAMA3}

# gguf-py's own table, which is not ours.
_ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}


def weights(architecture: Architecture, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Random weights under Hugging Face's names."""
    random = np.random.default_rng(seed)
    return {
        name: random.normal(size=shape).astype(np.float32)
        for name, shape in architecture.parameter_shapes().items()
    }


def source_tensors(arrays: dict[str, NDArray[Any]]) -> dict[str, SourceTensor]:
    """Arrays as a source hands them over, each in several pieces."""
    return {name: source_tensor(name, array) for name, array in arrays.items()}


def source_tensor(name: str, array: NDArray[Any]) -> SourceTensor:
    dtype = {"float32": "f32", "float16": "f16"}[array.dtype.name]
    flat = array.reshape(-1)

    def pieces() -> list[memoryview]:
        return [part.data.cast("B") for part in np.array_split(flat, 3)]

    return SourceTensor(name, dtype, array.shape, pieces)


@functools.cache
def _name_map(model_type: str) -> gguf.TensorNameMap:
    return gguf.get_tensor_name_map(_ARCHITECTURES[model_type], 4)


def gguf_name(name: str, model_type: str) -> str:
    """GGUF's name, by gguf-py's table."""
    found = _name_map(model_type).get_name(name, try_suffixes=(".weight", ".bias"))
    assert found, name
    return found


def adjacent(array: NDArray[Any], num_heads: int) -> NDArray[Any]:
    """llama.cpp's `LlamaModel.permute`, as it stands there."""
    return (
        array.reshape(num_heads, 2, array.shape[0] // num_heads // 2, *array.shape[1:])
        .swapaxes(1, 2)
        .reshape(array.shape)
    )


def turned_rows(
    architecture: Architecture, arrays: dict[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """The arrays with rows in llama.cpp's order, where the family has one of its own."""
    if architecture.model_type != "llama":
        return arrays
    heads = {
        "q_proj": architecture.num_attention_heads,
        "k_proj": architecture.num_key_value_heads,
    }
    moved = dict(arrays)
    for name, array in arrays.items():
        part = name.split(".")[-2]
        if part in heads:
            moved[name] = adjacent(array, heads[part])
    return moved


def llama3_factors(architecture: Architecture) -> NDArray[np.float32]:
    """The divisors, by the loop of llama.cpp's converter, in its single precision."""
    scaling = architecture.rope_scaling
    assert scaling
    dim = architecture.head_dim
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    frequencies = np.float32(1.0) / (np.float32(architecture.rope_theta) ** exponents)
    old = scaling.original_max_position_embeddings
    factors: list[float] = []
    for frequency in frequencies:
        wavelength = np.float32(2 * np.pi) / frequency
        if wavelength < old / scaling.high_freq_factor:
            factors.append(1)
        elif wavelength > old / scaling.low_freq_factor:
            factors.append(scaling.factor)
        else:
            smooth = (old / wavelength - scaling.low_freq_factor) / (
                scaling.high_freq_factor - scaling.low_freq_factor
            )
            factors.append(float(1 / ((1 - smooth) / scaling.factor + smooth)))
    return np.array(factors, dtype=np.float32)


@dataclass
class GgufModel:
    """A file about to be written by gguf-py; a test changes what it wants to be wrong."""

    architecture: Architecture = LLAMA
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])
    """By GGUF's names, rows in GGUF's order."""
    types: dict[str, gguf.GGMLQuantizationType] = field(default_factory=dict)
    """Of tensors whose array is raw bytes."""
    keys: dict[str, tuple[Any, gguf.GGUFValueType]] = field(default_factory=dict)
    tokenizer: dict[str, Any] = field(default_factory=tokenizer_files.document)
    slug: str = ""

    def set(self, key: str, value: Any, kind: str = "UINT32") -> "GgufModel":
        self.keys[key] = value, gguf.GGUFValueType[kind]
        return self

    def write(self, path: Path) -> Path:
        writer = gguf.GGUFWriter(path, self.slug or self.architecture.model_type)
        for key, (value, kind) in self.keys.items():
            writer.add_key_value(key, value, kind)
        for name, array in self.arrays.items():
            writer.add_tensor(name, array, raw_dtype=self.types.get(name))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path


def model(architecture: Architecture = LLAMA, *, pre: str | None = "gpt-2") -> GgufModel:
    """A sound file of a family, as llama.cpp's converter makes it."""
    slug = architecture.model_type
    arrays = turned_rows(architecture, weights(architecture))
    named = {gguf_name(name, slug): array for name, array in arrays.items()}
    if architecture.rope_scaling:
        named["rope_freqs.weight"] = llama3_factors(architecture)
    made = GgufModel(architecture, named, slug=slug)
    counts = {
        "block_count": architecture.num_hidden_layers,
        "context_length": architecture.max_position_embeddings,
        "embedding_length": architecture.hidden_size,
        "feed_forward_length": architecture.intermediate_size,
        "attention.head_count": architecture.num_attention_heads,
        "attention.head_count_kv": architecture.num_key_value_heads,
        "attention.key_length": architecture.head_dim,
        "attention.value_length": architecture.head_dim,
        "vocab_size": architecture.vocab_size,
        "rope.dimension_count": architecture.head_dim,
    }
    made.set("general.type", "model", "STRING")
    for name, count in counts.items():
        made.set(f"{slug}.{name}", count)
    made.set(f"{slug}.rope.freq_base", architecture.rope_theta, "FLOAT32")
    made.set(f"{slug}.attention.layer_norm_rms_epsilon", architecture.rms_norm_eps, "FLOAT32")
    if pre is not None:
        add_tokenizer(made, made.tokenizer, pre=pre)
    return made


def add_tokenizer(made: GgufModel, document: dict[str, Any], *, pre: str) -> GgufModel:
    """The tokenizer's fields, filled up to the rows of the embedding."""
    vocab = dict(document["model"]["vocab"])
    types = dict.fromkeys(vocab.values(), gguf.TokenType.NORMAL)
    for token in document["added_tokens"]:
        vocab[token["content"]] = token["id"]
        special = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
        types[token["id"]] = special
    by_id = {id: piece for piece, id in vocab.items()}
    rows = range(made.architecture.vocab_size)
    tokens = [by_id.get(id, f"[PAD{id}]") for id in rows]
    made.set("tokenizer.ggml.model", "gpt2", "STRING")
    made.set("tokenizer.ggml.pre", pre, "STRING")
    made.set("tokenizer.ggml.tokens", tokens, "ARRAY")
    kinds = [int(types.get(id, gguf.TokenType.UNUSED)) for id in rows]
    made.set("tokenizer.ggml.token_type", kinds, "ARRAY")
    made.set("tokenizer.ggml.merges", document["model"]["merges"], "ARRAY")
    made.set("tokenizer.ggml.eos_token_id", vocab[tokenizer_files.EOS])
    return made


def tokenizer_json(change: Callable[[dict[str, Any]], object] = tokenizer_files.nothing) -> bytes:
    value = tokenizer_files.document()
    change(value)
    return json.dumps(value).encode()


def whole(tensor: SourceTensor) -> bytes:
    """All bytes of a tensor."""
    return b"".join(tensor.chunks())
