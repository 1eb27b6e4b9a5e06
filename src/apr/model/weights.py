"""Weights between a Transformer and an `.apr` file, exactly and with proof.

Every tensor of the file is consumed exactly once, by name, shape and floating dtype; nothing is
left over and nothing keeps its initial value. The writer records a sha256 per tensor.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apr.architecture import Architecture
from apr.container.embedded_tokenizer import embed_tokenizer, restore_tokenizer
from apr.container.metadata import (
    Metadata,
    architecture_from_metadata,
    metadata_from_architecture,
)
from apr.container.reader import Container
from apr.container.writer import TensorSource, write_container
from apr.errors import DamagedFile, Refusal
from apr.files import sha256_bytes
from apr.model.transformer import Transformer
from apr.progress import Report, silent
from apr.tokenizer.tokenizer import Tokenizer

_TORCH_DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_TIED_HEAD = "lm_head.weight"
_EMBEDDING = "model.embed_tokens.weight"


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run, and what its file says about it."""

    model: Transformer
    tokenizer: Tokenizer | None
    metadata: Metadata


def save_model(
    path: Path,
    model: Transformer,
    *,
    tokenizer: Tokenizer | None,
    provenance: list[dict[str, Any]],
    dtype: str = "f32",
    overwrite: bool = False,
    progress: Report = silent,
) -> None:
    """Write a model as an `.apr` file, tensor by tensor.

    A tied head is the embedding's own storage and is stored once.

    Refuses: files.exists, files.io-failed, and what `container.writer` refuses.
    Writes: `path`, atomically.
    """
    architecture = model.architecture
    parameters = dict(model.named_parameters())
    assert {n: tuple(p.shape) for n, p in parameters.items()} == architecture.parameter_shapes()
    sources = [
        TensorSource(name, dtype, tuple(parameter.shape), _bytes_of(parameter, dtype))
        for name, parameter in parameters.items()
    ]
    free: dict[str, Any] = {
        "apr.provenance": provenance,
        "apr.tensor_sha256": {
            s.name: sha256_bytes(s.data())
            for s in sorted(sources, key=lambda source: source.name.encode())
        },
    }
    if architecture.tie_word_embeddings:
        free["tied_embeddings"] = True
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

    Weights become fp32 masters whatever the file stores.

    Refuses: container.* for a damaged file, model.tensors for one that holds another model.
    """
    with Container.open(path) as container:
        container.verify(progress=progress)
        architecture = architecture_from_metadata(
            container.metadata, container.tensors, where=str(path)
        )
        model = Transformer(architecture)
        _require_same_tensors(container, architecture)
        _copy_into(model, container)
        tokenizer = restore_tokenizer(container.metadata, where=str(path))
        return LoadedModel(model.to(device), tokenizer, container.metadata)


def _copy_into(model: Transformer, container: Container) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_tensor(container, name))


def _require_same_tensors(container: Container, architecture: Architecture) -> None:
    expected = architecture.parameter_shapes()
    found = {name: entry.shape for name, entry in container.tensors.items()}
    if architecture.tie_word_embeddings and _TIED_HEAD in found:
        _require_redundant_head(container)
        del found[_TIED_HEAD]
    problems = [f"{name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"{name} is not part of the model" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} is {list(found[name])}, not {list(expected[name])}"
        for name in expected.keys() & found.keys()
        if found[name] != expected[name]
    ]
    problems += [
        f"{name} is stored as {container.tensors[name].dtype}"
        for name in expected.keys() & found.keys()
        if container.tensors[name].dtype not in _TORCH_DTYPES
    ]
    _refuse_tensors(container.path, sorted(problems), len(expected))


def _require_redundant_head(container: Container) -> None:
    head, embedding = container.tensors[_TIED_HEAD], container.tensors[_EMBEDDING]
    same = head.dtype == embedding.dtype and head.shape == embedding.shape
    if not same or not np.array_equal(
        container.array(_TIED_HEAD).view(np.uint8), container.array(_EMBEDDING).view(np.uint8)
    ):
        _refuse_tensors(
            container.path, [f"{_TIED_HEAD} differs from the embedding it is tied to"], 1
        )


def _refuse_tensors(path: Path, problems: list[str], num_expected: int) -> None:
    if not problems:
        return
    more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
    raise Refusal(
        "model.tensors",
        path,
        found="; ".join(problems[:5]) + more,
        expected=f"exactly the {num_expected} tensors of the architecture in its metadata",
        fix="convert the checkpoint again from its source",
        upstream_id="FALSIFY-APR-PRETRAIN-INIT-007",
    )


def _tensor(container: Container, name: str) -> Tensor:
    entry = container.tensors[name]
    # A copy, because the view is of a read-only file that is about to be closed.
    array = np.array(container.array(name))
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if entry.dtype == "bf16" else tensor


def _bytes_of(parameter: Tensor, dtype: str) -> Callable[[], memoryview]:
    def data() -> memoryview:
        stored = parameter.detach().to("cpu", _TORCH_DTYPES[dtype]).contiguous()
        if not bool(torch.isfinite(stored).all()):
            raise DamagedFile(
                "model.non-finite",
                dtype,
                found="a weight that is not finite",
                expected="finite weights",
                fix="resume from an earlier checkpoint",
            )
        return memoryview(stored.view(torch.uint8).numpy()).cast("B")

    return data
