"""Is a run that was stopped and continued the same run: save, load and step; k and k steps."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from apr.model.transformer import Transformer
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.batches import Batch
from apr.train.checkpoint import load_checkpoint, save_checkpoint
from apr.train.config import TrainConfig
from apr.train.gates import Finding
from apr.train.guards import GuardState
from apr.train.optimizer import build_optimizer, state_tensors
from apr.train.schedule import learning_rate_at
from apr.train.selftest.distances import LARGEST_GPU_DISTANCE, differing, farthest
from apr.train.selftest.overfit import Step
from apr.train.selftest.small_run import few_layers_of, layers_of, size_of
from apr.train.step import SummedLoss
from apr.train.train_state import TrainState

_HALF = 2
_OTHER_SEED = 20_260_101
_FIX = "report this: a resumed run would not be the same run"

Load = Callable[[Path, Transformer, torch.optim.Optimizer], TrainState]


class Save(Protocol):
    """Writes a checkpoint below a directory and returns where, or one with a planted fault."""

    def __call__(
        self,
        run_dir: Path,
        model: Transformer,
        optimizer: torch.optim.Optimizer,
        state: TrainState,
        *,
        tokenizer: Tokenizer,
    ) -> Path:
        """Write it whole."""
        ...


def save(
    run_dir: Path,
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    state: TrainState,
    *,
    tokenizer: Tokenizer,
) -> Path:
    """A run's own way to write a checkpoint."""
    return save_checkpoint(
        run_dir, model, optimizer, state, tokenizer=tokenizer, provenance=[{"what": "selftest"}]
    )


@dataclass(frozen=True)
class Continuing:
    """Everything that decides the steps of a run, each piece replaceable by one with a fault."""

    config: TrainConfig
    tokenizer: Tokenizer
    micro_batches: Callable[[int], list[Batch]]
    step: Step
    summed_loss: SummedLoss
    learning_rate: Callable[[int, TrainConfig], float] = learning_rate_at
    save: Save = save
    load: Load = load_checkpoint


def check_save_load(model: Transformer, run: Continuing) -> Finding:
    """A step after saving and loading is the step without it: weights, moments, RNG and state.

    The checkpoint is a real one in a temporary directory, loaded into a model whose every weight
    is NaN, and an optimizer that has not been used.
    """
    with tempfile.TemporaryDirectory(prefix="apr-selftest-") as directory:
        side = _Side.fresh(few_layers_of(model), run)
        # Values that no fresh state has, so that one which is not saved is missed.
        side.state.best_step, side.state.best_loss_nats = 1, 1.25
        side.state.stale_validations, side.state.train_s = 3, 0.5
        side.state.guard = GuardState(grad_norms=[0.5, 2.0], skipped_steps=[1])
        side.state.start_loss_nats, side.state.improved_loss_nats = 2.5, 1.5
        side.state.tokens_by_source = [0]
        side.advance(1)
        saved = run.save(
            Path(directory), side.model, side.optimizer, side.state, tokenizer=run.tokenizer
        )
        drawn = _draw()
        side.advance(1)
        torch.manual_seed(_OTHER_SEED)
        loaded = _loaded(saved, side.model, run)
        drawn_after = _draw()
    at = loaded.state.step
    loaded.advance(1)
    apart = _compare(loaded, side)
    if not drawn.equal(drawn_after):
        apart.append("random numbers")
    return _judge(
        apart,
        loaded,
        side,
        f"a step after loading step {at}{layers_of(side.model, model)}",
        "the step without it",
    )


def check_resume(model: Transformer, run: Continuing) -> Finding:
    """K steps, a checkpoint and k steps equal 2k steps: data, schedule and update alike."""
    torch.manual_seed(run.config.seed)
    whole = _Side.fresh(few_layers_of(model), run)
    whole.advance(2 * _HALF)
    torch.manual_seed(run.config.seed)
    first = _Side.fresh(few_layers_of(model), run)
    first.advance(_HALF)
    with tempfile.TemporaryDirectory(prefix="apr-selftest-") as directory:
        saved = run.save(
            Path(directory), first.model, first.optimizer, first.state, tokenizer=run.tokenizer
        )
        resumed = _loaded(saved, first.model, run)
    del first
    resumed.advance(_HALF)
    apart = _compare(resumed, whole)
    what = f"{_HALF} + {_HALF} steps of {size_of(run.micro_batches(1)[0])}"
    return _judge(
        apart, resumed, whole, what + layers_of(whole.model, model), f"{2 * _HALF} steps at once"
    )


@dataclass
class _Side:
    """A model under way, and all that decides its next step."""

    run: Continuing
    model: Transformer
    optimizer: torch.optim.Optimizer
    state: TrainState

    @classmethod
    def fresh(cls, model: Transformer, run: Continuing) -> "_Side":
        return cls(run, model, build_optimizer(model, run.config), TrainState())

    def advance(self, num_steps: int) -> None:
        run = self.run
        for _ in range(num_steps):
            number = self.state.step + 1
            result = run.step(
                self.model,
                self.optimizer,
                run.micro_batches(number),
                step=number,
                learning_rate=run.learning_rate(number, run.config),
                max_grad_norm=run.config.max_grad_norm,
                document_mask=run.config.document_mask,
                summed_loss=run.summed_loss,
            )
            self.state.step = number
            self.state.tokens_seen += result.num_tokens

    def tensors(self) -> dict[str, Tensor]:
        """Weights, both moments and the step counts."""
        weights = {name: p.detach() for name, p in self.model.named_parameters()}
        return weights | state_tensors(self.model, self.optimizer)


def _loaded(saved: Path, like: Transformer, run: Continuing) -> _Side:
    """A fresh process in small: a model of NaN, an unused optimizer, and the checkpoint."""
    model = Transformer(like.architecture)
    model.compute_dtype, model.attention = like.compute_dtype, like.attention
    side = _Side.fresh(model.to(like.head_weight.device), run)
    side.state = run.load(saved, side.model, side.optimizer)
    return side


def _compare(side: _Side, expected: _Side) -> list[str]:
    """What differs, by name."""
    apart = ["state"] if side.state != expected.state else []
    return apart + differing(side.tensors(), expected.tensors())


def _judge(apart: list[str], side: _Side, expected: _Side, what: str, equal_to: str) -> Finding:
    tensors = expected.tensors()
    on_cpu = expected.model.head_weight.device.type == "cpu"
    wanted = "every bit the same" if on_cpu else f"within {LARGEST_GPU_DISTANCE:g}, relative"
    if apart and not on_cpu and set(apart) <= tensors.keys() == side.tensors().keys():
        distance = farthest(side.tensors(), tensors)
        return Finding(
            "PASS" if distance.value <= LARGEST_GPU_DISTANCE else "FAIL",
            f"{what}: {len(tensors)} tensors within {distance} of {equal_to}",
            wanted,
            _FIX,
        )
    if apart:
        found = f"{what}: {len(apart)} things differ from {equal_to}, first {apart[0]}"
        return Finding("FAIL", found, wanted, _FIX)
    return Finding("PASS", f"{what}: {len(tensors)} tensors and the state equal {equal_to}", wanted)


def _draw() -> Tensor:
    return torch.rand(4)
