"""F28: non-finite values that cascade, or are not noticed.

The faults are planted in the loss that a run computes with, through `prepare`'s own seam: the run
object that the trainer is given.
"""

import json
import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.run_data import RunData

from apr.errors import Refusal
from apr.jobs.pretrain import pretrain
from apr.report.page import write_report
from apr.train.checkpoint import latest_checkpoint, read_state
from apr.train.checkpoint_writer import CheckpointWriter
from apr.train.inputs import open_inputs
from apr.train.loss import summed_loss
from apr.train.mixture import BatchPart
from apr.train.optimizer import build_optimizer
from apr.train.origin import Origin
from apr.train.prefetch import Batches
from apr.train.prepare import PreparedRun, prepare
from apr.train.run_record import StepLog
from apr.train.skipped_step import load_skipped_step, skipped_step_dir
from apr.train.train_state import TrainState
from apr.train.trainer import Trainer

Planted = Callable[[torch.Tensor, Any], torch.Tensor]


def quiet(_text: str) -> None:
    """Nobody listens."""


def prepared(run_data: RunData, run_dir: Path, **changes: Any) -> PreparedRun:
    config = run_data.config(run_dir, **({"num_steps": 12, "eval_every": 4} | changes))
    return prepare(config, open_inputs(config, verify=False), notify=quiet)


@contextmanager
def trainer_of(
    run: PreparedRun, said: list[str], batches: Batches | None = None
) -> Generator[Trainer]:
    run.config.run_dir.mkdir(exist_ok=True)
    optimizer = build_optimizer(run.model, run.config)
    with (
        StepLog.open(run.config.run_dir, keep_through_step=-1) as log,
        CheckpointWriter(
            run.config.run_dir,
            run.model,
            optimizer,
            tokenizer=run.inputs.tokenizer,
            keep=run.config.keep,
            before_writing=log.sync,
        ) as checkpoints,
    ):
        yield Trainer(
            run=run,
            run_dir=run.config.run_dir,
            optimizer=optimizer,
            origin=Origin("0" * 64),
            log=log,
            checkpoints=checkpoints,
            batches=batches or BatchPart(run.order, 0, 1),
            progress=lambda _progress: None,
            notify=said.append,
        )


def train(
    run: PreparedRun, state: TrainState, said: list[str], batches: Batches | None = None
) -> None:
    with trainer_of(run, said, batches) as trainer:
        trainer.train(state, should_stop=lambda: False, should_save=lambda: False)


def at_steps(run: PreparedRun, steps: set[int], spoil: Planted) -> PreparedRun:
    """The run with a loss that is spoiled on the batches of some steps, and on no other text."""
    batches = [torch.from_numpy(run.order.batch(step).input_ids_BT) for step in steps]

    def loss(model: Any, inputs: Any, targets: Any, documents: Any) -> torch.Tensor:
        found = summed_loss(model, inputs, targets, documents)
        is_planted = any(torch.equal(inputs, batch) for batch in batches)
        return spoil(found, model) if is_planted else found

    return replace(run, summed_loss=loss)


def nan_loss(loss: torch.Tensor, _model: Any) -> torch.Tensor:
    return loss * float("nan")


def infinite_loss(loss: torch.Tensor, _model: Any) -> torch.Tensor:
    return loss * float("inf")


def nan_in_one_gradient(loss: torch.Tensor, model: Any) -> torch.Tensor:
    parameter = model.get_parameter("model.layers.0.mlp.down_proj.weight")
    hook = parameter.register_hook(lambda gradient: gradient * float("nan"))
    parameter.register_post_accumulate_grad_hook(lambda _parameter: hook.remove())
    return loss


def spike(loss: torch.Tensor, _model: Any) -> torch.Tensor:
    return loss + 1e6 * (loss - loss.detach())


def lines_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "steps.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("planted", [nan_loss, infinite_loss, nan_in_one_gradient])
def test_one_bad_batch_is_skipped_once_and_kept(
    run_data: RunData, tmp_path: Path, planted: Planted
) -> None:
    said: list[str] = []
    run, state = prepared(run_data, tmp_path / "run"), TrainState()
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    train(at_steps(run, {5}, planted), state, said)
    assert state.guard.skipped_steps == [5]
    assert (state.step, state.ended) == (12, "budget_exhausted")
    applied = [run.order.batch(step) for step in range(1, 13) if step != 5]
    assert state.tokens_seen == sum(batch.num_counted_tokens for batch in applied)
    kinds = [line["kind"] for line in lines_of(tmp_path / "run") if line["step"] == 5]
    assert kinds == ["skip"]
    assert len(said) == 1
    assert "apr selftest --replay" in said[0]
    kept = load_skipped_step(skipped_step_dir(tmp_path / "run", 5))
    assert kept.batch.input_ids_BT.tolist() == run.order.batch(5).input_ids_BT.tolist()
    assert not (math.isfinite(kept.facts.loss_nats) and math.isfinite(kept.facts.grad_norm))
    assert all(torch.isfinite(p).all() for p in run.model.parameters())
    assert any(not p.equal(before[name]) for name, p in run.model.named_parameters())


def test_the_harmless_twin_skips_nothing(run_data: RunData, tmp_path: Path) -> None:
    run, state, said = prepared(run_data, tmp_path / "run"), TrainState(), list[str]()
    train(run, state, said)
    assert state.guard.skipped_steps == said == []
    assert len(state.guard.grad_norms) == 12
    assert not (tmp_path / "run" / "skipped").exists()


def test_more_bad_batches_than_the_budget_stop_the_run(run_data: RunData, tmp_path: Path) -> None:
    run, state = prepared(run_data, tmp_path / "run"), TrainState()
    with pytest.raises(Refusal) as refused:
        train(at_steps(run, {5, 6, 9, 10}, nan_loss), state, [])
    assert refused.value.id == "train.non-finite"
    assert "4 of the last hundred steps" in refused.value.found
    assert "--replay" in refused.value.fix
    checkpoint, _ = latest_checkpoint(tmp_path / "run")
    assert checkpoint is not None
    assert checkpoint.name == "step-00000008"
    assert read_state(checkpoint).guard.skipped_steps == [5, 6]


def test_no_budget_stops_at_the_first(run_data: RunData, tmp_path: Path) -> None:
    run = prepared(run_data, tmp_path / "run", max_skipped_steps=0)
    with pytest.raises(Refusal) as refused:
        train(at_steps(run, {2}, nan_loss), TrainState(), [])
    assert refused.value.id == "train.non-finite"


def test_a_parameter_that_is_not_finite_stops_the_run_at_once(
    run_data: RunData, tmp_path: Path
) -> None:
    run, state = prepared(run_data, tmp_path / "run"), TrainState()

    def poison(loss: torch.Tensor, model: Any) -> torch.Tensor:
        model.get_parameter("model.norm.weight").data[0] = float("nan")
        return loss * float("nan")

    with pytest.raises(Refusal) as refused:
        train(at_steps(run, {6}, poison), state, [])
    assert refused.value.id == "train.non-finite-weights"
    assert "model.norm.weight" in refused.value.where
    checkpoint, _ = latest_checkpoint(tmp_path / "run")
    assert checkpoint is not None
    assert checkpoint.name == "step-00000004"


@pytest.mark.parametrize("moment", ["exp_avg", "exp_avg_sq"])
def test_an_update_that_is_not_finite_is_caught_before_it_is_applied(
    run_data: RunData, tmp_path: Path, moment: str
) -> None:
    run, state = prepared(run_data, tmp_path / "run"), TrainState()
    name = "model.layers.1.self_attn.o_proj.weight"

    with trainer_of(run, []) as trainer:

        def poison(loss: torch.Tensor, model: Any) -> torch.Tensor:
            trainer.optimizer.state[model.get_parameter(name)][moment][0, 0] = float("nan")
            return loss

        planted = replace(trainer, run=at_steps(run, {6}, poison))
        with pytest.raises(Refusal) as refused:
            planted.train(state, should_stop=lambda: False, should_save=lambda: False)
    assert refused.value.id == "train.non-finite"
    assert "moments nan" in refused.value.found
    assert all(torch.isfinite(p).all() for p in run.model.parameters())


def test_a_spike_is_skipped_once_enough_is_known(run_data: RunData, tmp_path: Path) -> None:
    run = prepared(run_data, tmp_path / "run", num_steps=40, eval_every=40)
    state = TrainState()
    train(at_steps(run, {10, 36}, spike), state, [])
    # Step 10 came before anything could be called usual.
    assert state.guard.skipped_steps == [36]
    (line,) = [line for line in lines_of(tmp_path / "run") if line["kind"] == "skip"]
    assert line["id"] == "train.gradient-spike"


def test_statistics_survive_a_resume_in_the_middle_of_a_window(
    run_data: RunData, tmp_path: Path
) -> None:
    whole, halves = TrainState(), TrainState()
    train(at_steps(prepared(run_data, tmp_path / "a"), {3}, nan_loss), whole, [])
    first = at_steps(prepared(run_data, tmp_path / "b"), {3}, nan_loss)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 6

    with trainer_of(first, []) as trainer:
        assert trainer.train(halves, should_stop=stop, should_save=lambda: False) == "interrupted"
    checkpoint, _ = latest_checkpoint(tmp_path / "b")
    assert checkpoint is not None
    read = read_state(checkpoint)
    assert read.guard == halves.guard
    assert read.guard.skipped_steps == [3]
    assert read.guard.grad_norms == whole.guard.grad_norms[:5]


def test_the_page_of_a_run_names_its_skipped_steps(run_data: RunData, tmp_path: Path) -> None:
    pretrain(run_data.config(tmp_path / "run"))
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "Not applied" not in page
    line = json.dumps({"kind": "skip", "step": 9, "id": "train.non-finite", "found": "loss nan"})
    with (tmp_path / "run" / "steps.jsonl").open("a", encoding="utf-8") as log:
        log.write(line + "\n")
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "Not applied: step 9." in page
    assert "of a kind that this version" not in page
