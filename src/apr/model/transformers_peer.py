"""A Hugging Face directory computed by transformers, where it is installed: the peer of a proof.

Everything here runs in a process of its own. No code of the directory is run, and no pickle read.
"""

import logging
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class PeerAnswer:
    """What transformers made of a directory."""

    version: str
    logits_PV: NDArray[np.float32]
    """Of the asked positions of the flattened probes."""
    complaints: tuple[str, ...]
    """Warnings, and parameters that were missing, unexpected or of another shape."""
    is_tied: bool
    model_class: str


def why_not(num_parameters: int) -> str | None:
    """Why transformers cannot be asked about a model of this size here, or None."""
    if find_spec("transformers") is None:
        return "transformers is not installed"
    # fp32 weights, and half as much again while they are read.
    needed = 6 * num_parameters
    available = _available_bytes()
    if available is not None and needed > available:
        return f"it needs {needed >> 20} MiB of memory, {available >> 20} MiB are free"
    return None


def ask(directory: Path, ids_BT: NDArray[np.intp], positions: NDArray[np.intp]) -> PeerAnswer:
    """Load a directory with `AutoModelForCausalLM` and compute some positions of the probes."""
    complaints: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import transformers

    from transformers.utils import logging as library_logging

    handler = _Collector(complaints)
    library_logging.get_logger("transformers").addHandler(handler)
    library_logging.disable_progress_bar()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loader: Any = transformers.AutoModelForCausalLM
        model, info = loader.from_pretrained(
            directory,
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
        model.eval()
        logits = _logits(model, ids_BT, positions)
    complaints += [str(each.message) for each in caught]
    complaints += [f"{kind}: {names}" for kind, names in info.items() if names]
    return PeerAnswer(
        version=transformers.__version__,
        logits_PV=logits,
        complaints=tuple(complaints),
        is_tied=model.get_output_embeddings().weight is model.get_input_embeddings().weight,
        model_class=type(model).__name__,
    )


@torch.inference_mode()
def _logits(
    model: Any, ids_BT: NDArray[np.intp], positions: NDArray[np.intp]
) -> NDArray[np.float32]:
    found: list[torch.Tensor] = []
    length = ids_BT.shape[1]
    for row, ids in enumerate(ids_BT):
        wanted = positions[positions // length == row] % length
        if len(wanted):
            hidden = model.model(torch.from_numpy(ids[None].astype(np.int64)), use_cache=False)[0]
            found.append(model.lm_head(hidden[0, torch.from_numpy(wanted.astype(np.int64))]))
    return torch.cat(found).float().numpy()


class _Collector(logging.Handler):
    def __init__(self, complaints: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._complaints = complaints

    def emit(self, record: logging.LogRecord) -> None:
        self._complaints.append(record.getMessage())


def _available_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None
