"""Does every parameter get a gradient, and does a step move it as far as its rate says."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from apr.model.transformer import Transformer
from apr.train.batches import Batch
from apr.train.config import TrainConfig
from apr.train.gates import Finding
from apr.train.gradients_gate import measure_gradients
from apr.train.hidden_matrices import is_hidden_matrix
from apr.train.optimizer import build_optimizer
from apr.train.selftest.overfit import OptimizerOf, Step
from apr.train.selftest.plain_muon import SHARE_OF_RATE
from apr.train.selftest.small_run import copy_of, size_of
from apr.train.step import SummedLoss

# AdamW's first step moves a coordinate by rate * |g| / (|g| + eps): by the rate, or a little less.
_LEAST_SHARE_OF_RATE, _MOST_SHARE_OF_RATE = 0.5, 1.001
# Muon's iterations leave the singular values of an update between 0.5 and 1.5 (Jordan et al. 2024).
_MOST_OF_MUON = 1.5
_ROUNDINGS = 4.0
_FIX = "a parameter that does not move is never learnt; report this"


def check_parameters_change(
    model: Transformer,
    batch: Batch,
    config: TrainConfig,
    *,
    step: Step,
    summed_loss: SummedLoss,
    build: OptimizerOf = build_optimizer,
) -> Finding:
    """Every parameter is finite, has a finite non-zero gradient, and moves by the rate.

    The rate is the peak of the run. Beside it a matrix decays by rate times weight decay. A matrix
    that Muon updates moves as far as its singular values say, all of which are about alike.

    Source: Loshchilov and Hutter 2019, algorithm 2, at t = 1; Liu et al. 2025, equation 4.
    """
    assert config.learning_rate is not None
    rate, parameters = config.learning_rate, dict(model.named_parameters())
    expected = (
        f"all {len(parameters)} parameters finite, with a gradient that is finite and not zero, "
        f"moved by {_LEAST_SHARE_OF_RATE:g} to 1 times the rate {rate:g} and their decay"
    )
    if not_finite := [n for n, p in parameters.items() if not bool(torch.isfinite(p).all())]:
        return Finding("FAIL", f"{_first(not_finite)} not finite", expected, _FIX)
    moved = copy_of(model)
    gradients = measure_gradients(moved, batch, summed_loss, document_mask=config.document_mask)
    dead = [name for name, norm in gradients.norms.items() if not 0.0 < norm < math.inf]
    if dead:
        found = f"{_first(dead)} without a finite, non-zero gradient"
        return Finding("FAIL", found, expected, _FIX)
    del gradients
    result = step(
        moved,
        build(moved, config),
        [batch],
        step=1,
        learning_rate=rate,
        max_grad_norm=config.max_grad_norm,
        document_mask=config.document_mask,
        summed_loss=summed_loss,
    )
    moves = _moves(model, moved, config, rate=rate)
    wrong = [name for name, move in moves.items() if not move.is_by_the_rate]
    if result.lr_applied != rate:
        found = f"the step says that it applied {result.lr_applied:g}"
    elif wrong:
        found = f"{_first(wrong)} moved by {moves[wrong[0]].farthest:.3g} of the rate"
    else:
        least = min(moves, key=lambda name: moves[name].farthest)
        found = (
            f"{len(moves)} of {len(moves)}; over {size_of(batch)} each moved by "
            f"{moves[least].farthest:.3f} of the rate or more ({least})"
        )
    good = result.lr_applied == rate and not wrong
    return Finding("PASS" if good else "FAIL", found, expected, _FIX)


@dataclass(frozen=True)
class _Move:
    """How far a parameter moved, and how far beyond what fp32 rounds away.

    Units: the learning rate; the decay is taken off. Under AdamW it is the largest coordinate;
    under Muon the Frobenius norm of the move over that of a move with one singular value of 1.
    """

    farthest: float
    surely: float
    at_most: float

    @property
    def is_by_the_rate(self) -> bool:
        """Whether it is neither too short nor, without what may be rounding, too long."""
        return self.farthest >= _LEAST_SHARE_OF_RATE and self.surely <= self.at_most


def _moves(
    before: Transformer, after: Transformer, config: TrainConfig, *, rate: float
) -> dict[str, _Move]:
    return {
        name: _moved(
            parameter,
            after.get_parameter(name),
            rate,
            config.weight_decay,
            by_muon=config.optimizer == "muon" and is_hidden_matrix(name, parameter.shape),
        )
        for name, parameter in before.named_parameters()
    }


def _moved(
    before: Tensor, after: Tensor, rate: float, weight_decay: float, *, by_muon: bool
) -> _Move:
    old, new = before.detach().double(), after.detach().double()
    decay = weight_decay if before.ndim >= 2 else 0.0
    moved = (new - old * (1.0 - rate * decay)).abs()
    rounding = _ROUNDINGS * torch.finfo(torch.float32).eps * old.abs()
    if not by_muon:
        moves = float(moved.max()) / rate, float((moved - rounding).max()) / rate
        return _Move(*moves, _MOST_SHARE_OF_RATE)
    unit = rate * SHARE_OF_RATE * max(before.shape) ** 0.5
    moves = float(moved.norm()) / unit, float((moved - rounding).clamp(min=0.0).norm()) / unit
    return _Move(*moves, _MOST_OF_MUON * min(before.shape) ** 0.5)


def _first(names: list[str]) -> str:
    return f"{len(names)} parameters, first {names[0]}," if len(names) > 1 else names[0]
