"""Is an update AdamW's, or Muon's, and torch's clipping: ten steps against plain ones."""

from dataclasses import dataclass

import torch
from torch import Tensor

from apr.model.transformer import Transformer
from apr.train.batches import Batch
from apr.train.config import TrainConfig
from apr.train.gates import Finding
from apr.train.hidden_matrices import is_hidden_matrix
from apr.train.optimizer import build_optimizer
from apr.train.selftest.distances import farthest
from apr.train.selftest.overfit import OptimizerOf, Step
from apr.train.selftest.plain_muon import PlainMuon
from apr.train.selftest.small_run import few_layers_of, layers_of, size_of
from apr.train.step import SummedLoss, accumulate_batch

_NUM_STEPS = 10
_LARGEST_DISTANCE = 1e-4
# Muon iterates in bf16; the last bit of an fp32 gradient moves it by up to 4e-3 (docs/log.md).
_LARGEST_DISTANCE_OF_MUON = 2e-2
_LARGEST_NORM = 1e-4
# In turns, so that a factor which is thrown away is no constant: AdamW would not notice one.
_CLIP_FACTORS = (0.1, 10.0)
_FIX = "report this: the update is not the one that the configuration names"


def check_optimizer(
    model: Transformer,
    batches: list[Batch],
    config: TrainConfig,
    *,
    step: Step,
    summed_loss: SummedLoss,
    build: OptimizerOf = build_optimizer,
) -> Finding:
    """Ten steps move every parameter as torch's unfused AdamW and clip_grad_norm_ do.

    That side is given the same gradients, and decays matrices only. Clipping bites in every other
    step. Under Muon the matrices inside the blocks move as `PlainMuon` moves them.

    Source: torch.optim.AdamW(fused=False, foreach=False), torch.nn.utils.clip_grad_norm_.
    """
    assert config.learning_rate is not None
    ours = few_layers_of(model)
    reference = _Reference.of(ours, config)
    before = {name: value.detach().clone() for name, value in reference.parameters.items()}
    optimizer, worst_norm = build(ours, config), 0.0
    for number in range(1, _NUM_STEPS + 1):
        batch = batches[(number - 1) % len(batches)]
        reference.take_gradients(ours, batch, config, summed_loss)
        limit = _CLIP_FACTORS[number % 2] * reference.gradient_norm()
        norm = reference.step(limit)
        result = step(
            ours,
            optimizer,
            [batch],
            step=number,
            learning_rate=config.learning_rate,
            max_grad_norm=limit,
            document_mask=config.document_mask,
            summed_loss=summed_loss,
        )
        apart = abs(result.grad_norm - norm) / norm
        worst_norm = apart if not apart <= worst_norm else worst_norm
    moved = {name: value - before[name] for name, value in ours.named_parameters()}
    expected_move = {name: value - before[name] for name, value in reference.parameters.items()}
    adamw, muon = (
        farthest(*({name: side[name] for name in names} for side in (moved, expected_move)))
        for names in (moved.keys() - reference.names_of_muon, reference.names_of_muon)
    )
    agrees = adamw.value <= _LARGEST_DISTANCE and worst_norm <= _LARGEST_NORM
    agrees &= muon.value <= _LARGEST_DISTANCE_OF_MUON
    found, expected = f"within {adamw}", f"torch's AdamW within {_LARGEST_DISTANCE:g}"
    if muon.num_compared:
        found += f", those of Muon within {muon}"
        expected += f" and plain Muon within {_LARGEST_DISTANCE_OF_MUON:g}"
    return Finding(
        "PASS" if agrees else "FAIL",
        f"{_NUM_STEPS} steps of {size_of(batches[0])}{layers_of(ours, model)}: "
        f"{adamw.num_compared + muon.num_compared} parameters moved {found}, gradient norms within "
        f"{worst_norm:.1e}",
        f"the movements of {expected}, its norms within {_LARGEST_NORM:g}, relative",
        _FIX,
    )


@dataclass(frozen=True)
class _Reference:
    """The same parameters under the plainest updates; the gradients come from the other side."""

    parameters: dict[str, torch.nn.Parameter]
    names_of_muon: set[str]
    adamw: torch.optim.AdamW
    muon: PlainMuon

    @classmethod
    def of(cls, model: Transformer, config: TrainConfig) -> "_Reference":
        parameters = {
            name: torch.nn.Parameter(parameter.detach().clone())
            for name, parameter in model.named_parameters()
        }
        of_muon = {
            name
            for name, parameter in parameters.items()
            if config.optimizer == "muon" and is_hidden_matrix(name, parameter.shape)
        }
        others = [parameter for name, parameter in parameters.items() if name not in of_muon]
        rate, decay = config.learning_rate, config.weight_decay
        assert rate is not None
        adamw = torch.optim.AdamW(
            [
                {"params": [p for p in others if p.ndim >= 2], "weight_decay": decay},
                {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=rate,
            betas=(config.adam_beta1, config.adam_beta2),
            fused=False,
            foreach=False,
        )
        matrices = [parameters[name] for name in sorted(of_muon)]
        muon = PlainMuon(matrices, learning_rate=rate, weight_decay=decay)
        return cls(parameters, of_muon, adamw, muon)

    def take_gradients(
        self, model: Transformer, batch: Batch, config: TrainConfig, summed_loss: SummedLoss
    ) -> None:
        accumulate_batch(model, batch, summed_loss, document_mask=config.document_mask)
        for name, parameter in model.named_parameters():
            self.parameters[name].grad = _clone(parameter.grad)
        model.zero_grad(set_to_none=True)

    def gradient_norm(self) -> float:
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def step(self, limit: float) -> float:
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), limit, foreach=False)
        self.adamw.step()
        self.muon.step()
        return float(norm)


def _clone(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.clone()
