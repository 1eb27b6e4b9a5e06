"""Is an update AdamW's and torch's clipping: ten steps against torch's plain ones."""

from dataclasses import dataclass

import torch
from torch import Tensor

from apr.model.transformer import Transformer
from apr.train.batches import Batch
from apr.train.config import TrainConfig
from apr.train.gates import Finding
from apr.train.optimizer import build_optimizer
from apr.train.selftest.distances import farthest
from apr.train.selftest.overfit import OptimizerOf, Step
from apr.train.selftest.small_run import few_layers_of, layers_of, size_of
from apr.train.step import SummedLoss, accumulate

_NUM_STEPS = 10
_LARGEST_DISTANCE = 1e-4
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

    torch's side is given the same gradients, and decays matrices only. Clipping bites in every
    other step.

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
    distance = farthest(moved, expected_move)
    agrees = distance.value <= _LARGEST_DISTANCE and worst_norm <= _LARGEST_NORM
    return Finding(
        "PASS" if agrees else "FAIL",
        f"{_NUM_STEPS} steps of {size_of(batches[0])}{layers_of(ours, model)}: "
        f"{distance.num_compared} parameters moved within {distance}, gradient norms within "
        f"{worst_norm:.1e}",
        f"the movements of torch's AdamW within {_LARGEST_DISTANCE:g}, its norms within "
        f"{_LARGEST_NORM:g}, relative",
        _FIX,
    )


@dataclass(frozen=True)
class _Reference:
    """The same parameters under torch's plainest AdamW; the gradients come from the other side."""

    parameters: dict[str, torch.nn.Parameter]
    optimizer: torch.optim.AdamW

    @classmethod
    def of(cls, model: Transformer, config: TrainConfig) -> "_Reference":
        parameters = {
            name: torch.nn.Parameter(parameter.detach().clone())
            for name, parameter in model.named_parameters()
        }
        matrices = [p for p in parameters.values() if p.ndim >= 2]
        vectors = [p for p in parameters.values() if p.ndim < 2]
        assert config.learning_rate is not None
        optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            fused=False,
            foreach=False,
        )
        return cls(parameters, optimizer)

    def take_gradients(
        self, model: Transformer, batch: Batch, config: TrainConfig, summed_loss: SummedLoss
    ) -> None:
        model.zero_grad(set_to_none=True)
        accumulate(
            model,
            [batch],
            num_tokens=batch.num_counted_tokens,
            document_mask=config.document_mask,
            summed_loss=summed_loss,
        )
        for name, parameter in model.named_parameters():
            self.parameters[name].grad = _clone(parameter.grad)
        model.zero_grad(set_to_none=True)

    def gradient_norm(self) -> float:
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def step(self, limit: float) -> float:
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), limit, foreach=False)
        self.optimizer.step()
        return float(norm)


def _clone(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.clone()
