"""Small models in containers, with the faults that tests plant in them."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apr.architecture import Architecture
from apr.container import free_keys
from apr.container.metadata import metadata_from_architecture
from apr.container.named_keys import Metadata
from apr.container.writer import TensorSource, write_container

LLAMA = Architecture(
    model_type="llama",
    vocab_size=11,
    hidden_size=8,
    intermediate_size=12,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=4,
    max_position_embeddings=32,
    rope_theta=10_000.0,
    rms_norm_eps=1e-6,
    tie_word_embeddings=True,
)
QWEN2 = replace(LLAMA, model_type="qwen2")
UNTIED = replace(LLAMA, tie_word_embeddings=False)


@dataclass
class ModelFile:
    """A model about to be written; a test changes what it wants to be wrong."""

    architecture: Architecture = LLAMA
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    metadata: Metadata = field(default_factory=Metadata)

    def write(self, path: Path) -> Path:
        write_container(
            path,
            metadata=self.metadata,
            tensors=[source(name, array) for name, array in self.arrays.items()],
            overwrite=True,
        )
        return path

    def set(self, **keys: Any) -> None:
        """Replace named keys; None leaves one out."""
        self.metadata = self.metadata.model_copy(update=keys)

    def set_free(self, keys: dict[str, Any]) -> None:
        self.metadata = self.metadata.with_free(keys)


def model_file(architecture: Architecture = LLAMA, free: dict[str, Any] | None = None) -> ModelFile:
    """A sound model of an architecture, with reproducible weights."""
    random = np.random.default_rng(0)
    arrays = {
        name: random.standard_normal(shape).astype("<f4")
        for name, shape in architecture.parameter_shapes().items()
    }
    metadata = metadata_from_architecture(
        architecture, num_parameters=architecture.num_parameters, free=free or {}
    )
    return ModelFile(architecture, arrays, metadata)


def hashes(arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """The free key that records every tensor's sha256."""
    return {
        free_keys.TENSOR_SHA256: {
            name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()
        }
    }


def source(name: str, array: NDArray[Any]) -> TensorSource:
    """An array as a tensor to be written, uint16 as bf16."""
    dtype = {"f4": "f32", "f2": "f16", "u2": "bf16"}[array.dtype.str[1:]]
    return TensorSource(name, dtype, array.shape, lambda: [memoryview(array)])
