"""What the tests of proofs share: a configuration, and a model with biases."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.unit.train.batch_fixture import VOCAB_SIZE

from apr.architecture import preset
from apr.model.init import initialize
from apr.model.transformer import Transformer
from apr.train.config import TrainConfig
from apr.train.resolved_config import resolve_config


def config(**options: Any) -> TrainConfig:
    """A run whose files no proof of a step reads."""
    nowhere = Path("nowhere")
    return resolve_config({"dataset": nowhere, "tokenizer": nowhere, "run_dir": nowhere, **options})


def model_with_biases(vocab_size: int = VOCAB_SIZE) -> Transformer:
    """Two layers of the Qwen2 family, whose q, k and v have biases."""
    tiny = preset("tiny", tokenizer_vocab_size=vocab_size)
    model = Transformer(replace(tiny, model_type="qwen2"))
    initialize(model, seed=0)
    return model
