"""Models as sources, made in memory, with the faults that tests plant between source and file."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apr.architecture import Architecture, RopeScaling
from apr.convert.source import ReferenceConfig, Source, SourceTensor
from apr.jobs.fresh_process import in_this_process

SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "rope_theta": 1_000_000.0,
    "rms_norm_eps": 1e-6,
}
SCALING = RopeScaling(
    factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
)
ARCHITECTURES = {
    f"{family}-{'tied' if tied else 'untied'}{'-scaled' if scaling else ''}": Architecture(
        model_type=family, tie_word_embeddings=tied, rope_scaling=scaling, **SMALL
    )
    for family, scaling in (
        ("llama", None),
        ("llama", SCALING),
        ("mistral", None),
        ("qwen2", None),
        ("qwen3", None),
    )
    for tied in (True, False)
}
LLAMA = ARCHITECTURES["llama-tied"]
QWEN2 = ARCHITECTURES["qwen2-untied"]

# A proof without another interpreter and without transformers, for tests of many models.
QUICK: dict[str, Any] = {"ask_transformers": False, "run_proof": in_this_process}

Arrays = dict[str, NDArray[np.float32]]


def random_arrays(architecture: Architecture, *, seed: int = 0) -> Arrays:
    """Weights of a size that makes every operation matter; norms and biases are no constants."""
    random = np.random.default_rng(seed)
    arrays: Arrays = {}
    for name, shape in architecture.parameter_shapes().items():
        values = random.standard_normal(shape).astype(np.float32)
        if name.endswith("norm.weight"):
            arrays[name] = 1.0 + 0.2 * values
        elif len(shape) == 1:
            arrays[name] = 0.3 * values
        else:
            # Small at the embedding, as trained ones are: the norm's eps then counts.
            arrays[name] = values * np.float32(0.02 if "embed" in name else 0.2)
    return arrays


def tensor(name: str, array: NDArray[Any]) -> SourceTensor:
    """An array as a tensor, uint16 as bf16."""
    kept = np.ascontiguousarray(array)
    dtype = {"f4": "f32", "f2": "f16", "u2": "bf16"}[kept.dtype.str[1:]]
    return SourceTensor(name, dtype, kept.shape, partial(_one_piece, kept.tobytes()))


def _one_piece(data: bytes) -> list[memoryview]:
    return [memoryview(data)]


def tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, SourceTensor]:
    return {name: tensor(name, array) for name, array in arrays.items()}


def source(architecture: Architecture = LLAMA, arrays: Arrays | None = None) -> Source:
    """A source whose reference is read off the same architecture, and whose tensors are equal."""
    made = tensors(random_arrays(architecture) if arrays is None else arrays)
    scaling = architecture.rope_scaling
    return Source(
        where=Path("memory"),
        format="safetensors",
        architecture=architecture,
        tensors=made,
        stored=made,
        reference=ReferenceConfig(
            **{
                name: getattr(architecture, name)
                for name in (
                    "vocab_size",
                    "hidden_size",
                    "num_hidden_layers",
                    "num_attention_heads",
                    "num_key_value_heads",
                    "head_dim",
                    "rms_norm_eps",
                    "rope_theta",
                )
            },
            rope_scaling={k: v for k, v in scaling.to_hf_config().items() if k != "rope_type"}
            if scaling
            else None,
            rotary_pairs="halves",
        ),
        tokenizer=None,
        hf_config={},
        generation_config=None,
        chat_template=None,
        files=(),
    )


Fault = Callable[[Source], Source]


def with_field(**fields: Any) -> Fault:
    """The architecture with another value."""
    return lambda source: replace(source, architecture=replace(source.architecture, **fields))


def with_array(name: str, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Fault:
    """One tensor with other values."""

    def fault(source: Source) -> Source:
        (data,) = source.tensors[name].chunks()
        values = np.frombuffer(data, np.float32).reshape(source.tensors[name].shape)
        return replace(source, tensors={**source.tensors, name: tensor(name, change(values))})

    return fault


def swapped(one: str, other: str) -> Fault:
    """Two tensors of one shape under each other's names."""

    def fault(source: Source) -> Source:
        exchanged = {
            one: replace(source.tensors[other], name=one),
            other: replace(source.tensors[one], name=other),
        }
        return replace(source, tensors={**source.tensors, **exchanged})

    return fault


def adjacent_rows(num_heads: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Rows of a projection in the order of adjacent pairs, as Llama's own files have them."""

    def permute(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        by_pair = rows.reshape(num_heads, 2, -1, *rows.shape[1:])
        return by_pair.swapaxes(1, 2).reshape(rows.shape)

    return permute
