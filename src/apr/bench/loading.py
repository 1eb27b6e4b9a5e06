"""How soon the weights of a file are in memory as an fp32 model, by apr and by others.

Every side reads a file that was written or read just before, so from the memory of the system and
not from the disk, and ends with every weight in fp32: apr verifies each byte on the way, the others
verify none. A checksum of all weights says whether the sides have read the same model.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from apr.architecture import Architecture
from apr.bench.peak_memory import peak_memory_bytes
from apr.model.init import initialize
from apr.model.transformer import Transformer
from apr.model.weights import load_model, save_model
from apr.progress import Report, silent

_WEIGHTS_NAME = "model.safetensors"
PEERS = {
    "safetensors": "safetensors' load_file and a copy in fp32, nothing verified",
    "transformers": "transformers' from_pretrained in fp32, nothing verified",
}
PEER_PACKAGES = {"transformers": ("transformers",)}


@dataclass(frozen=True)
class Loaded:
    """Two loadings in a process of its own; the first pays for imports as well."""

    first_s: float
    elapsed_s: float
    """Of the second."""
    file_bytes: int
    num_parameters: int
    checksum: float
    peak_memory_bytes: int | None


def measure_load(side: str, path: Path, *, progress: Report = silent) -> Loaded:
    """Load a model: an `.apr` file for apr's side, a Hugging Face directory for the others.

    Refuses: for apr's side, as `load_model`.
    """
    load = _LOADERS[side](path)
    times_s: list[float] = []
    tensors: list[Tensor] = []
    for _ in range(2):
        tensors.clear()
        started_s = time.perf_counter()
        tensors = load(progress)
        times_s.append(time.perf_counter() - started_s)
    peak_bytes, _ = peak_memory_bytes(torch.device("cpu"))
    first_s, second_s = times_s
    return Loaded(
        first_s,
        second_s,
        _file_bytes(path),
        sum(tensor.numel() for tensor in tensors),
        math.fsum(float(tensor.double().abs().sum()) for tensor in tensors),
        peak_bytes,
    )


def write_made_up(path: Path, architecture: Architecture, *, seed: int = 0) -> None:
    """A container with fresh weights, without a tokenizer.

    Writes: `path`.
    """
    model = Transformer(architecture)
    initialize(model, seed=seed)
    save_model(path, model, tokenizer=None, provenance=[])


def write_directory(path: Path, directory: Path) -> None:
    """The weights of a container as a Hugging Face directory in fp32, enough to load them from.

    Refuses: as `load_model`.
    Writes: `directory`.
    """
    model = load_model(path).model
    directory.mkdir()
    config = model.architecture.to_hf_config() | {"dtype": "float32"}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = {name: parameter.detach() for name, parameter in model.named_parameters()}
    save_file(tensors, directory / _WEIGHTS_NAME, metadata={"format": "pt"})


def _apr(path: Path) -> Callable[[Report], list[Tensor]]:
    return lambda progress: _distinct(load_model(path, progress=progress).model)


def _safetensors(path: Path) -> Callable[[Report], list[Tensor]]:
    files = sorted(path.glob("*.safetensors"))

    def load(_progress: Report) -> list[Tensor]:
        # A tensor that is only mapped has not been read.
        return [
            tensor.to(torch.float32, copy=True)
            for file in files
            for tensor in load_file(file).values()
        ]

    return load


def _transformers(path: Path) -> Callable[[Report], list[Tensor]]:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    kind = transformers.AutoModelForCausalLM

    def load(_progress: Report) -> list[Tensor]:
        model = kind.from_pretrained(path, dtype=torch.float32, local_files_only=True)
        return _distinct(model)

    return load


_LOADERS = {"apr": _apr, "safetensors": _safetensors, "transformers": _transformers}


def _distinct(model: nn.Module) -> list[Tensor]:
    return [parameter.detach() for parameter in model.parameters()]


def _file_bytes(path: Path) -> int:
    files = [path] if path.is_file() else list(path.glob("*.safetensors"))
    return sum(file.stat().st_size for file in files)
