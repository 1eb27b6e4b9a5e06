"""One update against torch's own pieces, and the faults it must refuse."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.train.batch_fixture import gradients, random_batch, tiny_model
from torch.nn import functional

from apr.errors import Refusal
from apr.model.transformer import Transformer
from apr.train.batches import Batch
from apr.train.config import TrainConfig
from apr.train.loss import summed_loss
from apr.train.optimizer import applied_learning_rate, build_optimizer
from apr.train.resolved_config import resolve_config
from apr.train.step import StepResult, accumulate, accumulate_batch, train_step


def config(**options: Any) -> TrainConfig:
    nowhere = Path("nowhere")
    return resolve_config({"dataset": nowhere, "tokenizer": nowhere, "run_dir": nowhere, **options})


def step(
    model: Transformer, optimizer: torch.optim.Optimizer, parts: list[Batch], **changes: Any
) -> StepResult:
    arguments: dict[str, Any] = {
        "step": 1,
        "learning_rate": 1e-3,
        "max_grad_norm": 1.0,
        "document_mask": True,
        "summed_loss": summed_loss,
    }
    return train_step(model, optimizer, parts, **(arguments | changes))


def test_loss_is_torch_cross_entropy_row_by_row() -> None:
    model, batch = tiny_model(), random_batch(counted=[16, 3, 0, 7])
    ids, targets = torch.from_numpy(batch.input_ids_BT), torch.from_numpy(batch.target_ids_BT)
    documents = torch.from_numpy(batch.document_numbers_BT)
    logits = model(ids)
    expected = torch.stack(
        [
            functional.cross_entropy(row, wanted, ignore_index=-100, reduction="sum")
            for row, wanted in zip(logits, targets, strict=True)
        ]
    )
    torch.testing.assert_close(summed_loss(model, ids, targets, documents), expected)
    torch.testing.assert_close(summed_loss(model, ids, targets, None), expected)


@pytest.mark.parametrize("max_grad_norm", [0.01, 1e9])
def test_f26_ten_steps_equal_torch_adamw_and_clipping(max_grad_norm: float) -> None:
    ours, theirs = tiny_model(), tiny_model()
    settings = config(weight_decay=0.3, adam_beta1=0.8, adam_beta2=0.9)
    optimizer = build_optimizer(ours, settings)
    matrices = [p for p in theirs.parameters() if p.ndim >= 2]
    vectors = [p for p in theirs.parameters() if p.ndim < 2]
    reference = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.3}, {"params": vectors, "weight_decay": 0.0}],
        lr=1e-3,
        betas=(0.8, 0.9),
        fused=False,
        foreach=False,
    )
    for number in range(10):
        batch = random_batch(seed=number)
        result = step(ours, optimizer, [batch], max_grad_norm=max_grad_norm)
        reference.zero_grad()
        logits = theirs(torch.from_numpy(batch.input_ids_BT))
        targets = torch.from_numpy(batch.target_ids_BT)
        loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_grad_norm)
        reference.step()
        assert result.loss_nats == pytest.approx(float(loss.detach()), abs=1e-5)
        assert result.grad_norm == pytest.approx(float(norm), rel=1e-4)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter, theirs.get_parameter(name), rtol=1e-4, atol=1e-5)


def test_f25_accumulation_weights_every_token_alike() -> None:
    counted = [3, 16, 0, 16, 1, 16, 16, 2]
    batch = random_batch(rows=8, counted=counted)
    assert batch.num_counted_tokens == sum(counted)
    losses, grads = [], []
    for num_parts in (1, 2, 4, 8):
        model = tiny_model()
        losses.append(
            accumulate_batch(model, batch, summed_loss, document_mask=True, num_parts=num_parts)
        )
        grads.append(gradients(model))
    for loss, grad in zip(losses[1:], grads[1:], strict=True):
        assert loss == pytest.approx(losses[0], rel=1e-6)
        for name, expected in grads[0].items():
            torch.testing.assert_close(grad[name], expected)


def test_f25_a_planted_mean_of_means_would_be_seen() -> None:
    batch = random_batch(rows=2, counted=[3, 16])

    def mean_of_means(*arguments: Any) -> torch.Tensor:
        counted = int((arguments[2] >= 0).sum())
        return summed_loss(*arguments) / counted * (batch.num_counted_tokens / 2)

    right, wrong = tiny_model(), tiny_model()
    options: dict[str, Any] = {"num_tokens": batch.num_counted_tokens, "document_mask": True}
    accumulate(right, batch.split(2), summed_loss=summed_loss, **options)
    accumulate(wrong, batch.split(2), summed_loss=mean_of_means, **options)
    name = "model.layers.0.mlp.up_proj.weight"
    with pytest.raises(AssertionError):
        torch.testing.assert_close(gradients(wrong)[name], gradients(right)[name])


def test_f24_the_rate_is_read_back_from_the_optimizer() -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, config())
    assert applied_learning_rate(optimizer) == 0.0
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert step(model, optimizer, [random_batch()], learning_rate=0.0).lr_applied == 0.0
    assert all(p.equal(before[name]) for name, p in model.named_parameters())
    assert step(model, optimizer, [random_batch()], learning_rate=7e-4).lr_applied == 7e-4
    assert not any(p.equal(before[name]) for name, p in model.named_parameters())


def test_f24_groups_that_disagree_on_the_rate_are_our_bug() -> None:
    optimizer = build_optimizer(tiny_model(), config())
    optimizer.param_groups[1]["lr"] = 1.0
    with pytest.raises(AssertionError, match="disagree"):
        applied_learning_rate(optimizer)


def test_f24_betas_and_decay_reach_the_optimizer() -> None:
    optimizer = build_optimizer(
        tiny_model(), config(adam_beta1=0.7, adam_beta2=0.8, weight_decay=0.2)
    )
    assert all(group["betas"] == (0.7, 0.8) for group in optimizer.param_groups)
    decays = [
        {p.ndim for p in group["params"]}
        for group in optimizer.param_groups
        if group["weight_decay"] == 0.2
    ]
    assert decays == [{2}]


def _nan_in_the_loss(*arguments: Any) -> torch.Tensor:
    return summed_loss(*arguments) * float("nan")


def _infinite_gradient(*arguments: Any) -> torch.Tensor:
    loss = summed_loss(*arguments)
    loss.register_hook(lambda gradient: gradient * float("inf"))
    return loss


@pytest.mark.parametrize("planted", [_nan_in_the_loss, _infinite_gradient])
def test_f28_a_non_finite_step_is_refused_before_it_is_applied(
    planted: Callable[..., torch.Tensor],
) -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, config())
    step(model, optimizer, [random_batch()])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    moments = {id(p): optimizer.state[p]["exp_avg"].clone() for p in model.parameters()}
    with pytest.raises(Refusal) as refused:
        step(model, optimizer, [random_batch(seed=1)], step=7, summed_loss=planted)
    assert refused.value.id == "train.non-finite"
    assert refused.value.where == "step 7, rows 0, 1, 2, 3"
    assert all(p.equal(before[name]) for name, p in model.named_parameters())
    assert all(optimizer.state[p]["exp_avg"].equal(moments[id(p)]) for p in model.parameters())


def test_a_step_without_a_counted_target_is_refused() -> None:
    model = tiny_model()
    with pytest.raises(Refusal) as refused:
        step(model, build_optimizer(model, config()), [random_batch(counted=[0] * 4)])
    assert refused.value.id == "train.no-counted-tokens"
