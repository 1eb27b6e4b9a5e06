"""Weights between a Transformer and an `.apr` file, exactly and with proof.

Every tensor of the file is consumed exactly once, by name, shape and floating dtype; nothing is
left over and nothing keeps its initial value. The writer records a sha256 per tensor.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apr.architecture import Architecture
from apr.container import free_keys
from apr.container.contents import require_contents
from apr.container.embedded_tokenizer import embed_tokenizer, restore_tokenizer
from apr.container.layout import DTYPES
from apr.container.metadata import metadata_from_architecture
from apr.container.named_keys import Metadata
from apr.container.reader import Container
from apr.container.values import count_non_finite
from apr.container.writer import TensorSource, write_container
from apr.errors import DamagedFile
from apr.files import sha256_chunks
from apr.model.transformer import Transformer
from apr.progress import Report, silent
from apr.quantization.formats import dequantize
from apr.tokenizer.tokenizer import Tokenizer

_TORCH_DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run, and what its file says about it."""

    model: Transformer
    tokenizer: Tokenizer | None
    metadata: Metadata


def end_of_text_ids(loaded: LoadedModel) -> set[int]:
    """The ids that end a text: the declared separator, and those of the source's configuration."""
    ids: set[int] = set()
    if loaded.tokenizer is not None and loaded.tokenizer.eos_token_id is not None:
        ids.add(loaded.tokenizer.eos_token_id)
    for key in (free_keys.HF_CONFIG, free_keys.GENERATION_CONFIG):
        stated = loaded.metadata.free.get(key)
        named = stated.get("eos_token_id") if isinstance(stated, dict) else None
        ids.update(id for id in (named if isinstance(named, list) else [named]) if id is not None)
    return ids


def save_model(
    path: Path,
    model: Transformer,
    *,
    tokenizer: Tokenizer | None,
    provenance: list[dict[str, Any]],
    carried: Mapping[str, Any] | None = None,
    dtype: str = "f32",
    overwrite: bool = False,
    progress: Report = silent,
) -> None:
    """Write a model as an `.apr` file, tensor by tensor.

    A tied head is the embedding's own storage and is stored once.

    Refuses: as `save_weights`.
    Writes: `path`, atomically.
    """
    save_weights(
        path,
        model.architecture,
        dict(model.named_parameters()),
        tokenizer=tokenizer,
        provenance=provenance,
        carried=carried,
        dtype=dtype,
        overwrite=overwrite,
        progress=progress,
    )


def save_weights(
    path: Path,
    architecture: Architecture,
    parameters: Mapping[str, Tensor],
    *,
    tokenizer: Tokenizer | None,
    provenance: list[dict[str, Any]],
    carried: Mapping[str, Any] | None = None,
    dtype: str = "f32",
    overwrite: bool = False,
    progress: Report = silent,
) -> None:
    """Write the parameters of a model as an `.apr` file; they must not change meanwhile.

    `carried` are free keys of the model that these weights come from, which hold for them too.

    Refuses: files.exists, files.io-failed, model.non-finite, and what `container.writer` refuses.
    Writes: `path`, atomically.
    """
    assert {n: tuple(p.shape) for n, p in parameters.items()} == architecture.parameter_shapes()
    sources = [
        TensorSource(name, dtype, tuple(parameter.shape), _chunks_of(parameter, dtype))
        for name, parameter in parameters.items()
    ]
    free: dict[str, Any] = {
        **(carried or {}),
        free_keys.PROVENANCE: provenance,
        free_keys.TENSOR_SHA256: {
            s.name: _finite_sha256(s)
            for s in sorted(sources, key=lambda source: source.name.encode())
        },
    }
    if architecture.tie_word_embeddings:
        free[free_keys.TIED] = True
    if tokenizer is not None:
        free |= embed_tokenizer(tokenizer)
    metadata = metadata_from_architecture(
        architecture,
        num_parameters=sum(parameter.numel() for parameter in parameters.values()),
        free=free,
    )
    write_container(
        path, metadata=metadata, tensors=sources, overwrite=overwrite, progress=progress
    )


def load_model(path: Path, *, device: str = "cpu", progress: Report = silent) -> LoadedModel:
    """Read a model from an `.apr` file after verifying every byte of it.

    Weights become fp32 masters whatever the file stores; quantised blocks are dequantised.

    Refuses: container.*, for a damaged file as for one that does not hold exactly one model.
    """
    with opened_weights(path, progress=progress) as stored:
        model = Transformer(stored.architecture)
        with torch.no_grad():
            for name, tensor in stored.tensors():
                model.get_parameter(name).copy_(tensor)
        tokenizer = restore_tokenizer(stored.metadata, where=path)
        return LoadedModel(model.to(device), tokenizer, stored.metadata)


@dataclass(frozen=True)
class StoredWeights:
    """The weights of an open `.apr` file, verified and not yet read."""

    architecture: Architecture
    _container: Container

    @property
    def metadata(self) -> Metadata:
        """What the file says about its model."""
        return self._container.metadata

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter by name as fp32, one after the other; only the last is in memory."""
        for name in self.architecture.parameter_shapes():
            yield name, _tensor(self._container, name).float()


@contextmanager
def opened_weights(path: Path, *, progress: Report = silent) -> Generator[StoredWeights]:
    """Open the weights of an `.apr` file after verifying every byte of it.

    Refuses: as `load_model`.
    """
    with Container.open(path) as container:
        container.verify(progress=progress)
        yield StoredWeights(require_contents(container), container)


def _tensor(container: Container, name: str) -> Tensor:
    entry = container.tensors[name]
    if DTYPES[entry.dtype].is_quantized:
        values = dequantize(entry.dtype, container.raw(name), entry.num_elements)
        return torch.from_numpy(values).view(entry.shape)
    # A copy, because the view is of a read-only file that is about to be closed.
    array = np.array(container.array(name))
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if entry.dtype == "bf16" else tensor


def _chunks_of(parameter: Tensor, dtype: str) -> Callable[[], Iterable[memoryview]]:
    def chunks() -> Iterable[memoryview]:
        yield tensor_bytes(parameter.detach().to("cpu", _TORCH_DTYPES[dtype]))

    return chunks


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor on the CPU, in place where they lie in order."""
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().data.cast("B")


def _finite_sha256(source: TensorSource) -> str:
    chunks = list(source.chunks())
    # In numpy: torch would start threads of its own beside those that train.
    if any(count_non_finite(source.dtype, chunk, is_first=True) for chunk in chunks):
        raise DamagedFile(
            "model.non-finite",
            source.name,
            found="a weight that is not finite",
            expected="finite weights",
            fix="resume from an earlier checkpoint",
        )
    return sha256_chunks(chunks)
