"""A model that has taken a step, and its checkpoints."""

from dataclasses import dataclass
from pathlib import Path

import torch
from tests.tokenizer_files import tokenizer
from tests.unit.train.batch_fixture import random_batch, tiny_model

from apr.model.transformer import Transformer
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.checkpoint import save_checkpoint
from apr.train.loss import summed_loss
from apr.train.optimizer import build_optimizer, state_tensors
from apr.train.resolved_config import resolve_config
from apr.train.step import train_step
from apr.train.train_state import TrainState


@dataclass(frozen=True)
class Trained:
    """What a checkpoint is made of."""

    model: Transformer
    optimizer: torch.optim.Optimizer
    tokenizer: Tokenizer

    def step(self, number: int) -> None:
        """Change every tensor that a checkpoint holds."""
        train_step(
            self.model,
            self.optimizer,
            [random_batch(seed=number)],
            step=number,
            learning_rate=1e-2,
            max_grad_norm=1.0,
            document_mask=True,
            summed_loss=summed_loss,
        )

    def values(self) -> dict[str, torch.Tensor]:
        """Copies of weights, moments and RNG as they are now."""
        live = dict(self.model.named_parameters()) | state_tensors(self.model, self.optimizer)
        return {name: tensor.detach().clone() for name, tensor in live.items()} | {
            "rng": torch.get_rng_state()
        }

    def save(self, run_dir: Path, step: int, **state: int | None) -> Path:
        """Write a checkpoint of now under the name of a step."""
        return save_checkpoint(
            run_dir,
            self.model,
            self.optimizer,
            TrainState(step=step, **state),  # pyright: ignore[reportArgumentType]
            tokenizer=self.tokenizer,
            provenance=[],
        )


def trained() -> Trained:
    """A tiny model after one step."""
    nowhere = Path("nowhere")
    config = resolve_config({"dataset": nowhere, "tokenizer": nowhere, "run_dir": nowhere})
    model = tiny_model()
    fresh = Trained(model, build_optimizer(model, config), tokenizer())
    fresh.step(1)
    return fresh
