"""F26, F28, F34 under Muon: the update is the one defined, and a resume goes on with its state."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.run_data import RunData
from tests.unit.train.batch_fixture import random_batch, tiny_model
from tests.unit.train.selftest.planted import config, model_with_biases

from apr.errors import Interrupted, Refusal
from apr.files import read_json, sha256_file, write_json
from apr.jobs.pretrain import pretrain
from apr.jobs.resume import resume
from apr.jobs.sitting import Listener
from apr.model.transformer import Transformer
from apr.model.weights import load_model
from apr.train.checkpoint import latest_checkpoint
from apr.train.config import TrainConfig
from apr.train.gates import Finding
from apr.train.loss import summed_loss
from apr.train.muon import MuonBesideAdamW
from apr.train.optimizer import build_optimizer
from apr.train.selftest.overfit import check_overfit
from apr.train.selftest.parameters import check_parameters_change
from apr.train.selftest.update import check_optimizer
from apr.train.step import StepResult, train_step

Build = Callable[[Transformer, TrainConfig], torch.optim.Optimizer]
# Decay enough to be seen beside what iterations in bf16 round away.
SETTINGS = config(optimizer="muon", weight_decay=30.0)


def updated(settings: TrainConfig = SETTINGS, **planted: Any) -> Finding:
    functions: dict[str, Any] = {"step": train_step, "summed_loss": summed_loss}
    batches = [random_batch(seed=1), random_batch(seed=2)]
    return check_optimizer(model_with_biases(), batches, settings, **functions | planted)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1, 30.0])
def test_the_update_is_plain_muon_and_torchs_adamw(weight_decay: float) -> None:
    finding = updated(config(optimizer="muon", weight_decay=weight_decay, adam_beta2=0.9))
    assert finding.verdict == "PASS", finding.found
    assert finding.found.startswith("10 steps of 4 rows of 16 tokens: 26 parameters moved")
    assert "those of Muon within" in finding.found


def _muon_of(model: Transformer, settings: TrainConfig, *, names: list[str]) -> MuonBesideAdamW:
    others = [p for name, p in model.named_parameters() if name not in names]
    groups = [
        {"params": [p for p in others if p.ndim == ndim], "weight_decay": decay}
        for ndim, decay in ((2, settings.weight_decay), (1, 0.0))
    ]
    adamw = torch.optim.AdamW(groups, lr=0.0, betas=(settings.adam_beta1, settings.adam_beta2))
    return MuonBesideAdamW(
        [model.get_parameter(name) for name in names], adamw, weight_decay=settings.weight_decay
    )


def _with_the_embedding(model: Transformer, settings: TrainConfig) -> torch.optim.Optimizer:
    names = [name for name, p in model.named_parameters() if p.ndim == 2]
    return _muon_of(model, settings, names=names)


def _without_one_matrix(model: Transformer, settings: TrainConfig) -> torch.optim.Optimizer:
    names = [name for name, p in model.named_parameters() if name.endswith("proj.weight")]
    return _muon_of(model, settings, names=names[1:])


def _group(index: int, **changes: Any) -> Build:
    def build(model: Transformer, settings: TrainConfig) -> torch.optim.Optimizer:
        optimizer = build_optimizer(model, settings)
        optimizer.param_groups[index].update(changes)
        return optimizer

    return build


def _adamw_alone(model: Transformer, settings: TrainConfig) -> torch.optim.Optimizer:
    return build_optimizer(model, settings.model_copy(update={"optimizer": "adamw"}))


OPTIMIZERS: dict[str, Build] = {
    "Muon on the embedding": _with_the_embedding,
    "a matrix left to AdamW": _without_one_matrix,
    "decay on norms and biases": _group(2, weight_decay=30.0),
    "no decay of Muon's": _group(0, weight_decay=0.0),
    "no decay of the embedding": _group(1, weight_decay=0.0),
    "momentum that does not look ahead": _group(0, nesterov=False),
    "less momentum": _group(0, momentum=0.9),
    "fewer iterations": _group(0, ns_steps=4),
    "another scale": _group(0, adjust_lr_fn="original"),
    "AdamW alone": _adamw_alone,
}


def test_the_twin_built_by_hand_passes() -> None:
    def build(model: Transformer, settings: TrainConfig) -> torch.optim.Optimizer:
        names = [name for name, p in model.named_parameters() if name.endswith("proj.weight")]
        return _muon_of(model, settings, names=names)

    assert updated(build=build).verdict == "PASS"


@pytest.mark.parametrize("planted", OPTIMIZERS)
def test_another_optimizer_fails(planted: str) -> None:
    finding = updated(build=OPTIMIZERS[planted])
    assert finding.verdict == "FAIL", finding.found


def _not_clipped(*arguments: Any, **given: Any) -> StepResult:
    return train_step(*arguments, **given | {"max_grad_norm": float("inf")})


def _only_half_applied(
    model: Transformer, optimizer: Any, micro_batches: Any, **given: Any
) -> StepResult:
    return train_step(model, optimizer.adamw, micro_batches, **given)


@pytest.mark.parametrize("step", [_not_clipped, _only_half_applied])
def test_another_step_fails(step: Callable[..., StepResult]) -> None:
    assert updated(step=step).verdict == "FAIL"


def changed(**planted: Any) -> Finding:
    functions: dict[str, Any] = {"step": train_step, "summed_loss": summed_loss}
    settings = config(optimizer="muon")
    return check_parameters_change(
        model_with_biases(), random_batch(), settings, **functions | planted
    )


def test_every_parameter_moves() -> None:
    finding = changed()
    assert finding.verdict == "PASS", finding.found
    assert finding.found.startswith("26 of 26")


def _rate_times(factor: float) -> Callable[..., StepResult]:
    def step(*arguments: Any, **given: Any) -> StepResult:
        rate = given["learning_rate"]
        result = train_step(*arguments, **given | {"learning_rate": factor * rate})
        return StepResult(result.loss_nats, result.grad_norm, rate, result.num_tokens)

    return step


@pytest.mark.parametrize("step", [_rate_times(0.1), _rate_times(10.0), _only_half_applied])
def test_parameters_that_move_otherwise_fail(step: Callable[..., StepResult]) -> None:
    assert changed(step=step).verdict == "FAIL"


def test_a_batch_is_learnt_by_heart() -> None:
    finding = check_overfit(
        tiny_model(),
        random_batch(rows=2),
        config(optimizer="muon"),
        is_fresh=True,
        step=train_step,
        summed_loss=summed_loss,
    )
    assert finding.verdict == "PASS", finding.found


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_f28_a_momentum_that_is_not_finite_stops_the_step(value: float) -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, SETTINGS)

    def step(number: int) -> None:
        train_step(
            model,
            optimizer,
            [random_batch(seed=number)],
            step=number,
            learning_rate=1e-3,
            max_grad_norm=1.0,
            document_mask=True,
            summed_loss=summed_loss,
        )

    step(1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    matrix = model.get_parameter("model.layers.0.mlp.up_proj.weight")
    optimizer.state[matrix]["momentum_buffer"][1, 3] = value
    with pytest.raises(Refusal) as refused:
        step(2)
    assert refused.value.id == "train.non-finite"
    assert all(p.equal(before[name]) for name, p in model.named_parameters())


def stopped(run_data: RunData, run_dir: Path) -> Path:
    questions = iter([False] * 5)
    settings = run_data.config(run_dir, optimizer="muon")
    with pytest.raises(Interrupted):
        pretrain(settings, listener=Listener(should_stop=lambda: next(questions, True)))
    return run_dir


def losses(run_dir: Path) -> list[float]:
    lines = (run_dir / "steps.jsonl").read_text().splitlines()
    return [line["loss_nats"] for line in map(json.loads, lines)]


@pytest.fixture(scope="module")
def whole(run_data: RunData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("muon") / "whole"
    pretrain(run_data.config(run_dir, optimizer="muon"))
    return run_dir


def test_f34_k_and_k_steps_are_2k_steps(run_data: RunData, whole: Path, tmp_path: Path) -> None:
    halves = stopped(run_data, tmp_path / "halves")
    resume(halves)
    assert losses(halves) == losses(whole)
    one, other = (load_model(run / "model.apr").model.state_dict() for run in (whole, halves))
    assert all(tensor.equal(other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("fault", ["zeroed", "left out"])
def test_f34_a_momentum_that_is_lost_is_seen(
    run_data: RunData, whole: Path, tmp_path: Path, fault: str
) -> None:
    run_dir = stopped(run_data, tmp_path / "run")
    directory, _ = latest_checkpoint(run_dir)
    assert directory is not None
    tensors = load_file(directory / "state.safetensors")
    name = "model.layers.0.mlp.up_proj.weight/momentum_buffer"
    if fault == "zeroed":
        tensors[name] = torch.zeros_like(tensors[name])
    else:
        del tensors[name]
    save_file(tensors, directory / "state.safetensors")
    listing = read_json(directory / "checkpoint.json", limit_bytes=1 << 20, id="x", what="x")
    for file in listing["files"]:
        path = directory / file
        listing["files"][file] = {"size_bytes": path.stat().st_size, "sha256": sha256_file(path)}
    write_json(directory / "checkpoint.json", listing)
    if fault == "zeroed":
        resume(run_dir)
        assert losses(run_dir) != losses(whole)
        return
    with pytest.raises(Refusal) as refused:
        resume(run_dir)
    assert refused.value.id == "checkpoint.damaged"
    assert "momentum_buffer" in refused.value.found
