"""A tiny model and batches of random ids, for tests of the step."""

import copy

import numpy as np
import torch

from apr.architecture import preset
from apr.model.attention import masked
from apr.model.init import initialize
from apr.model.transformer import Transformer
from apr.train.batches import IGNORED_TARGET, Batch

VOCAB_SIZE = 61


def tiny_model(seed: int = 0) -> Transformer:
    """A fresh two-layer model."""
    model = Transformer(preset("tiny", tokenizer_vocab_size=VOCAB_SIZE))
    initialize(model, seed=seed)
    return model


def seeing(model: Transformer, mask_BTS: torch.Tensor) -> Transformer:
    """The same weights, under this mask whatever the documents are: where faults are planted."""
    other = copy.copy(model)
    other.attention = lambda _stream, _documents: masked(mask_BTS)
    return other


def random_batch(
    *, rows: int = 4, length: int = 16, counted: list[int] | None = None, seed: int = 0
) -> Batch:
    """Random ids; `counted` limits how many targets of each row count."""
    random = np.random.default_rng(seed)
    ids = random.integers(VOCAB_SIZE, size=(rows, length + 1))
    targets = ids[:, 1:].copy()
    for row, count in enumerate(counted or [length] * rows):
        targets[row, count:] = IGNORED_TARGET
    documents = np.zeros((rows, length), np.int64)
    return Batch(np.ascontiguousarray(ids[:, :-1]), targets, documents, tuple(range(rows)))


def gradients(model: Transformer) -> dict[str, torch.Tensor]:
    """Copies of all gradients."""
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
