"""F34: save, load and step, and k and k steps, as `apr selftest` proves them.

Each item of a run's state is dropped in turn, through the functions that load, read data and
decide the rate.
"""

import itertools
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.run_data import VOCAB_SIZE, RunData
from tests.unit.train.batch_fixture import random_batch
from tests.unit.train.selftest.planted import config, model_with_biases

from apr.model.transformer import Transformer
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.batches import Batch
from apr.train.checkpoint import load_checkpoint
from apr.train.config import TrainConfig
from apr.train.gates import Finding
from apr.train.loss import summed_loss
from apr.train.schedule import learning_rate_at
from apr.train.selftest.continuation import Continuing, check_resume, check_save_load
from apr.train.step import StepResult, train_step
from apr.train.train_state import TrainState


def micro_batches(step: int) -> list[Batch]:
    return random_batch(seed=step).split(2)


@pytest.fixture
def sound(run_data: RunData) -> Continuing:
    return Continuing(
        config=config(warmup_steps=3, num_steps=10, eval_every=10),
        tokenizer=Tokenizer.load(run_data.tokenizer),
        micro_batches=micro_batches,
        step=train_step,
        summed_loss=summed_loss,
    )


@pytest.fixture(autouse=True)
def _random_state() -> Generator[None]:
    with torch.random.fork_rng():
        yield


def saved_and_loaded(run: Continuing) -> Finding:
    return check_save_load(model_with_biases(VOCAB_SIZE), run)


def resumed(run: Continuing) -> Finding:
    return check_resume(model_with_biases(VOCAB_SIZE), run)


def test_a_run_that_is_continued_is_the_same_run(sound: Continuing) -> None:
    for finding in (saved_and_loaded(sound), resumed(sound)):
        assert finding.verdict == "PASS", finding.found
        assert "104 tensors" in finding.found  # Weights, two moments and a count of 26 parameters.
        assert finding.expected == "every bit the same"


Loaded = Callable[[Transformer, torch.optim.Optimizer, TrainState], TrainState]


def _weights(model: Transformer, optimizer: Any, state: TrainState) -> TrainState:
    with torch.no_grad():
        model.model.norm.weight.fill_(1.0)
    return state


def _moment(name: str) -> Loaded:
    def drop(model: Transformer, optimizer: torch.optim.Optimizer, state: TrainState) -> TrainState:
        optimizer.state[model.model.layers[1].self_attn.q_proj.bias][name].zero_()
        return state

    return drop


def _random_numbers(model: Any, optimizer: Any, state: TrainState) -> TrainState:
    torch.manual_seed(5)
    return state


def _field(name: str, value: Any) -> Loaded:
    return lambda _model, _optimizer, state: replace(state, **{name: value})


DROPPED: dict[str, Loaded] = {
    "a weight": _weights,
    "first moment": _moment("exp_avg"),
    "second moment": _moment("exp_avg_sq"),
    "step count": _moment("step"),
    "random numbers": _random_numbers,
    "data cursor": _field("step", 0),
    "tokens seen": _field("tokens_seen", 0),
    "best loss": _field("best_loss_nats", None),
    "best step": _field("best_step", None),
    "stale validations": _field("stale_validations", 0),
    "time": _field("train_s", 0.0),
}


def loading(drop: Loaded) -> Callable[..., TrainState]:
    def load(directory: Path, model: Transformer, optimizer: torch.optim.Optimizer) -> TrainState:
        return drop(model, optimizer, load_checkpoint(directory, model, optimizer))

    return load


@pytest.mark.parametrize("item", DROPPED)
def test_a_checkpoint_without_one_item_fails(sound: Continuing, item: str) -> None:
    finding = saved_and_loaded(replace(sound, load=loading(DROPPED[item])))
    assert finding.verdict == "FAIL", finding.found


@pytest.mark.parametrize("item", ["a weight", "first moment", "second moment", "data cursor"])
def test_k_and_k_steps_without_it_are_not_2k_steps(sound: Continuing, item: str) -> None:
    assert resumed(replace(sound, load=loading(DROPPED[item]))).verdict == "FAIL"


def test_weights_that_were_never_loaded_fail(sound: Continuing) -> None:
    def only_state(
        directory: Path, model: Transformer, optimizer: torch.optim.Optimizer
    ) -> TrainState:
        other = model_with_biases(VOCAB_SIZE)
        return load_checkpoint(directory, other, torch.optim.AdamW(other.parameters()))

    # The loaded model is still NaN: the step refuses, and a proof that cannot be made fails.
    with pytest.raises(Exception, match="nan"):
        saved_and_loaded(replace(sound, load=only_state))


class _Restarting:
    """Something of a run that counts its own calls, and so begins again when it is resumed."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def steps_since_resume(self, step: int) -> int:
        self.asked.append(step)
        # The whole run asks for steps 1 to 4, the first half for 1 and 2, the second for 3 and 4.
        return max(1, step - 2) if len(self.asked) > 6 else step


def test_data_that_begin_again_fail(sound: Continuing) -> None:
    counter = _Restarting()

    def restarting(step: int) -> list[Batch]:
        return micro_batches(counter.steps_since_resume(step))

    assert resumed(replace(sound, micro_batches=restarting)).verdict == "FAIL"
    assert counter.asked[:8] == [1, 2, 3, 4, 1, 2, 3, 4]


def test_a_schedule_that_begins_again_fails(sound: Continuing) -> None:
    counter = _Restarting()

    def restarting(step: int, settings: TrainConfig) -> float:
        return learning_rate_at(counter.steps_since_resume(step), settings)

    assert resumed(replace(sound, learning_rate=restarting)).verdict == "FAIL"
    assert counter.asked == [1, 2, 3, 4, 1, 2, 3, 4]


def _moving_by(draw: Callable[[], Any]) -> Callable[..., StepResult]:
    def step(model: Transformer, *arguments: Any, **given: Any) -> StepResult:
        with torch.no_grad():
            model.model.norm.weight.add_(1e-4 * draw())
        return train_step(model, *arguments, **given)

    return step


def test_a_step_may_draw_random_numbers_and_not_differ_each_time(sound: Continuing) -> None:
    drawing = replace(sound, step=_moving_by(lambda: torch.rand(())))
    for prove in (saved_and_loaded, resumed):
        assert prove(drawing).verdict == "PASS"
        assert prove(replace(drawing, load=loading(_random_numbers))).verdict == "FAIL"
        counting = _moving_by(itertools.count(1).__next__)
        assert prove(replace(sound, step=counting)).verdict == "FAIL"


def test_a_checkpoint_that_nothing_was_written_to_is_no_success(sound: Continuing) -> None:
    def save(run_dir: Path, *_arguments: Any, **_given: Any) -> Path:
        return run_dir / "nothing"

    with pytest.raises(Exception, match="checkpoint"):
        resumed(replace(sound, save=save))
