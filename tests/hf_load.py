"""What Hugging Face's libraries make of a directory, and everything they say while they do."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM


@dataclass(frozen=True)
class Loaded:
    """A model as transformers loaded it, and what it said: warnings, logs, unused weights."""

    model: Any
    said: list[str]


def load(directory: Path) -> Loaded:
    """Load a model with `from_pretrained`; what is said is returned, not shown.

    The type of the tensors is asked for: transformers 4 makes fp32 of everything otherwise.
    """
    with listening() as said:
        model, info = AutoModelForCausalLM.from_pretrained(
            directory, dtype="auto", output_loading_info=True
        )
    said += [f"{kind}: {names}" for kind, names in info.items() if names]
    return Loaded(model, said)


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.float().eval()(torch.tensor([ids])).logits[0]


@contextmanager
def listening() -> Iterator[list[str]]:
    """Collect Python warnings and every log record of warning or worse."""
    said: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger = logging.getLogger("transformers")
    handler = Collect(level=logging.WARNING)
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield said
        said += [str(each.message) for each in caught]
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        if bars:
            transformers.utils.logging.enable_progress_bar()
