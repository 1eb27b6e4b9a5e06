"""Muon against its papers, written here once more, and the state that a checkpoint keeps of it."""

import math
from pathlib import Path

import pytest
import torch
from tests.unit.train.batch_fixture import random_batch, tiny_model
from tests.unit.train.selftest.planted import config

from apr.architecture import preset
from apr.errors import Refusal
from apr.model.transformer import Transformer
from apr.train.hidden_matrices import is_hidden_matrix, num_moments
from apr.train.loss import summed_loss
from apr.train.memory import estimate_memory
from apr.train.optimizer import (
    applied_settings,
    build_optimizer,
    load_state_tensors,
    moments,
    set_learning_rate,
    state_tensors,
)
from apr.train.step import accumulate, train_step
from apr.train.workload import Workload

RATE, DECAY = 1e-2, 2.0
MUON = config(optimizer="muon", learning_rate=RATE, weight_decay=DECAY)


def hidden_names(model: Transformer) -> list[str]:
    return [name for name, p in model.named_parameters() if is_hidden_matrix(name, p.shape)]


def quintic(singular_values: torch.Tensor) -> torch.Tensor:
    """Jordan's polynomial on numbers: what five matrix iterations do to each singular value."""
    s = singular_values
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return s


def jordan_direction(matrix: torch.Tensor) -> torch.Tensor:
    """The update of a momentum, in fp64, through a singular value decomposition."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    return u @ torch.diag(quintic(s / s.norm())) @ v


def test_ten_steps_are_those_of_the_papers() -> None:
    """A fp64 Muon that knows no iteration on matrices, and torch's, which rounds to bf16."""
    model = tiny_model()
    optimizer = build_optimizer(model, MUON)
    set_learning_rate(optimizer, RATE)
    names = hidden_names(model)
    expected = {name: model.get_parameter(name).detach().double() for name in names}
    momenta = {name: torch.zeros_like(value) for name, value in expected.items()}
    before = {name: value.clone() for name, value in expected.items()}
    for number in range(10):
        model.zero_grad()
        batch = random_batch(seed=number)
        accumulate(model, [batch], num_tokens=64, document_mask=True, summed_loss=summed_loss)
        for name in names:
            gradient = model.get_parameter(name).grad
            assert gradient is not None
            momenta[name] = 0.95 * momenta[name] + gradient.double()
            direction = jordan_direction(gradient.double() + 0.95 * momenta[name])
            scale = 0.2 * math.sqrt(max(direction.shape))
            expected[name] = (1 - RATE * DECAY) * expected[name] - RATE * scale * direction
        optimizer.step()
    for name in names:
        ours = model.get_parameter(name).detach().double() - before[name]
        theirs = expected[name] - before[name]
        # bf16 iterations against exact ones; AdamW, or another scale, is ten times as far away.
        assert float((ours - theirs).norm() / theirs.norm()) < 0.1, name


def test_an_update_is_as_long_as_one_of_adamw() -> None:
    """Liu et al. 2025: 0.2 of the rate, root mean square, whatever the shape of the matrix."""
    torch.manual_seed(0)
    for shape in ((64, 176), (176, 64), (48, 48)):
        matrix = torch.nn.Parameter(torch.zeros(shape))
        optimizer = torch.optim.Muon([matrix], lr=1.0, adjust_lr_fn="match_rms_adamw")
        matrix.grad = torch.randn(shape)
        optimizer.step()
        length = float(matrix.detach().square().mean().sqrt())
        assert 0.14 < length < 0.24, (shape, length)


def test_groups_hold_the_matrices_of_blocks_the_others_and_the_vectors() -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, MUON)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    of_muon, matrices, vectors = (
        [names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups
    )
    assert of_muon == [name for name in names.values() if name.endswith("proj.weight")]
    assert matrices == ["model.embed_tokens.weight"]
    assert all("norm" in name for name in vectors)
    settings = applied_settings(optimizer)
    assert settings["kind"] == "MuonBesideAdamW"
    assert [group["weight_decay"] for group in settings["groups"]] == [DECAY, DECAY, 0.0]
    assert settings["groups"][0]["adjust_lr_fn"] == "match_rms_adamw"
    counted = sum(group["num_parameters"] for group in settings["groups"])
    assert counted == model.architecture.num_parameters


def test_a_rate_reaches_both() -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, MUON)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for number, rate in enumerate((0.0, RATE)):
        result = train_step(
            model,
            optimizer,
            [random_batch(seed=number)],
            step=number + 1,
            learning_rate=rate,
            max_grad_norm=1.0,
            document_mask=True,
            summed_loss=summed_loss,
        )
        assert result.lr_applied == rate
        same = [p.equal(before[name]) for name, p in model.named_parameters()]
        assert all(same) if rate == 0.0 else not any(same)


def test_an_untied_head_is_no_hidden_matrix() -> None:
    shapes = preset("llama-370m", tokenizer_vocab_size=512).parameter_shapes()
    others = [name for name, shape in shapes.items() if not is_hidden_matrix(name, shape)]
    matrices = [name for name in others if len(shapes[name]) == 2]
    assert matrices == ["model.embed_tokens.weight", "lm_head.weight"]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_as_many_moments_are_kept_as_the_estimates_count(optimizer: str) -> None:
    settings, model = config(optimizer=optimizer), tiny_model()
    built = build_optimizer(model, settings)
    assert moments(built) == []
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    built.step()
    kept = sum(moment.numel() for moment in moments(built))
    assert kept == num_moments(model.architecture, settings.optimizer)
    if optimizer == "muon":
        both = 2 * model.architecture.num_parameters
        hidden = sum(model.get_parameter(name).numel() for name in hidden_names(model))
        assert kept == both - hidden
    work = Workload(model.architecture, 4, 16, optimizer=settings.optimizer, compiled=False)
    assert estimate_memory(work).parts["optimizer moments"] == 4 * kept


def test_state_comes_back_under_its_name() -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, MUON)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    kept = state_tensors(model, optimizer)
    name = hidden_names(model)[0]
    assert f"{name}/momentum_buffer" in kept
    assert f"{name}/exp_avg" not in kept
    fresh = build_optimizer(model, MUON)
    load_state_tensors(model, fresh, dict(kept))
    assert state_tensors(model, fresh).keys() == kept.keys()
    # The planted faults: one tensor less, and the state of another optimizer.
    with pytest.raises(KeyError, match="momentum_buffer"):
        load_state_tensors(
            model, build_optimizer(model, MUON), {n: t for n, t in kept.items() if name not in n}
        )
    with pytest.raises(KeyError):
        load_state_tensors(model, build_optimizer(model, config()), dict(kept))


def test_a_finetuning_run_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        config(optimizer="muon", init=Path("base.apr"))
    assert refused.value.id == "config.muon-finetune"
    assert refused.value.exit_code == 2
    said = config(optimizer="muon", init=Path("base.apr"), mode="from-scratch")
    assert (said.optimizer, said.learning_rate) == ("muon", 3e-4)
    assert config(optimizer="adamw", init=Path("base.apr")).mode == "finetune"
