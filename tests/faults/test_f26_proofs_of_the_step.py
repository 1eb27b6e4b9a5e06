"""F26: the loss, its fast paths and the update, as `apr selftest` proves them, with planted faults.

F27's slip of fp32 into a bf16 run is seen by the same proof.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.unit.train.batch_fixture import random_batch, tiny_model
from tests.unit.train.selftest.planted import config, model_with_biases
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from apr.model.attention import Attend, causal_mask, flash, masked
from apr.model.transformer import Transformer
from apr.train.config import TrainConfig
from apr.train.gates import Finding
from apr.train.loss import masked_logits, plain_summed_loss, summed_loss
from apr.train.optimizer import build_optimizer
from apr.train.selftest.cross_entropy import check_cross_entropy
from apr.train.selftest.fast_paths import check_bf16, check_compiled
from apr.train.selftest.parameters import check_parameters_change
from apr.train.selftest.recomputation import check_recomputed
from apr.train.selftest.update import check_optimizer
from apr.train.step import StepResult, train_step

Loss = Callable[..., Tensor]


def model_in(dtype: torch.dtype) -> Transformer:
    model = model_with_biases()
    model.compute_dtype = dtype
    return model


def _stretched(factor: float) -> Loss:
    def loss(*arguments: Any) -> Tensor:
        nats = summed_loss(*arguments)
        nats.register_hook(lambda gradient: gradient * factor)
        return nats

    return loss


def _value_only(*arguments: Any) -> Tensor:
    """A thousandth too much, with the right gradient."""
    nats = summed_loss(*arguments)
    return nats + 0.001 * nats.detach()


def _without(name: str) -> Loss:
    """The right loss, and no gradient for one parameter."""

    def loss(model: Transformer, *arguments: Any) -> Tensor:
        kept = {name: model.get_parameter(name).detach()}

        def without(ids_BT: Tensor, **mask: Any) -> Tensor:
            return functional_call(model, kept, (ids_BT,), mask)

        return plain_summed_loss(without, *arguments)  # pyright: ignore[reportArgumentType]

    return loss


def _ignored_counts(model: Transformer, ids: Tensor, targets: Tensor, documents: Any) -> Tensor:
    return summed_loss(model, ids, targets.clamp_min(0), documents)


def _mean_of_nothing(model: Transformer, ids: Tensor, targets: Tensor, documents: Any) -> Tensor:
    logits = masked_logits(model, ids, documents).flatten(0, 1)
    mean = functional.cross_entropy(logits, targets.flatten(), ignore_index=-100)
    return mean * (targets >= 0).sum()


def _shifted(model: Transformer, ids: Tensor, targets: Tensor, documents: Any) -> Tensor:
    """Not the next token but the token itself."""
    return summed_loss(model, ids, torch.where(targets >= 0, ids, targets), documents)


def _last_row_dropped(model: Transformer, *arguments: Any) -> Tensor:
    return summed_loss(model, *(each[:-1] for each in arguments))


LOSSES: dict[str, Loss] = {
    "gradient x 1.001": _stretched(1.001),
    "gradient x 0.999": _stretched(0.999),
    "value x 1.001": _value_only,
    "a bias without gradient": _without("model.layers.0.self_attn.k_proj.bias"),
    "a norm without gradient": _without("model.layers.1.input_layernorm.weight"),
    "ignored targets count": _ignored_counts,
    "a mean of nothing": _mean_of_nothing,
    "targets not shifted": _shifted,
    "last row dropped": _last_row_dropped,
}


def cross_entropy(dtype: torch.dtype, loss: Loss) -> Finding:
    return check_cross_entropy(
        model_in(dtype), random_batch(), document_mask=True, summed_loss=loss
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_loss_is_cross_entropy(dtype: torch.dtype) -> None:
    finding = cross_entropy(dtype, summed_loss)
    assert finding.verdict == "PASS", finding.found
    assert "4 rows of 16 tokens" in finding.found


@pytest.mark.parametrize("planted", LOSSES)
def test_a_loss_that_is_not_cross_entropy_fails(planted: str) -> None:
    assert cross_entropy(torch.float32, LOSSES[planted]).verdict == "FAIL"


@pytest.mark.parametrize("planted", [*LOSSES][3:])
def test_in_bf16_all_but_a_thousandth_is_seen(planted: str) -> None:
    assert cross_entropy(torch.bfloat16, LOSSES[planted]).verdict == "FAIL"


def test_in_bf16_a_hundredth_is_seen() -> None:
    finding = cross_entropy(torch.bfloat16, _stretched(1.01))
    assert finding.verdict == "FAIL"


def compiled(dtype: torch.dtype, loss: Loss) -> Finding:
    return check_compiled(model_in(dtype), random_batch(), document_mask=True, compiled_loss=loss)


@pytest.mark.parametrize("in_fp32", [True, False])
def test_an_attention_kernel_in_fp32_is_seen_in_bf16(in_fp32: bool) -> None:
    def way(x_BTD: Tensor, documents_BT: Tensor | None) -> Attend:
        if not in_fp32:
            return flash(x_BTD, documents_BT)
        attend = flash(x_BTD.float(), documents_BT)
        return lambda *heads: attend(*(each.float() for each in heads)).to(x_BTD.dtype)

    model = model_in(torch.bfloat16)
    model.attention = way
    finding = check_bf16(model, random_batch(), document_mask=True, accelerated_loss=summed_loss)
    assert finding.verdict == ("FAIL" if in_fp32 else "PASS"), finding.found
    assert finding.found.startswith("27 of 29" if in_fp32 else "29 of 29")


def _in_another_order(model: Transformer, *arguments: Any) -> Tensor:
    """What a compiler may do: the same sum, row by row."""
    rows = range(len(arguments[0]))
    return sum(  # pyright: ignore[reportReturnType]
        summed_loss(model, *(each[row : row + 1] for each in arguments)) for row in rows
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_kernels_that_add_up_in_another_order_pass(dtype: torch.dtype) -> None:
    finding = compiled(dtype, _in_another_order)
    assert finding.verdict == "PASS", finding.found
    assert "26 gradients" in finding.found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "planted", ["a bias without gradient", "a norm without gradient", "last row dropped"]
)
def test_kernels_that_lose_a_gradient_fail(planted: str, dtype: torch.dtype) -> None:
    assert compiled(dtype, LOSSES[planted]).verdict == "FAIL"


def test_in_fp32_a_thousandth_is_seen_in_compiled_kernels() -> None:
    assert compiled(torch.float32, LOSSES["gradient x 1.001"]).verdict == "FAIL"


def bf16(model: Transformer, loss: Loss = summed_loss) -> Finding:
    return check_bf16(model, random_batch(), document_mask=True, accelerated_loss=loss)


def test_bf16_lies_near_fp32() -> None:
    finding = bf16(model_in(torch.bfloat16))
    assert finding.verdict == "PASS", finding.found
    # Forward a layer has 4 projections and 2 products of attention; backward has two for each,
    # and so has the head.
    assert finding.found.startswith("39 of 39 products")


def test_f27_a_run_that_only_says_bf16_fails() -> None:
    finding = bf16(model_in(torch.float32))
    assert finding.verdict == "FAIL"
    assert finding.found.startswith("0 of 39 products")


def test_f27_an_fp32_tensor_in_the_bf16_path_fails() -> None:
    model = model_in(torch.bfloat16)
    slipped = model.model.layers[1].mlp
    slipped.register_forward_pre_hook(lambda _module, inputs: (inputs[0].float(),))
    finding = bf16(model)
    assert finding.verdict == "FAIL"
    # What it adds to the stream makes everything after it fp32, here its products and the head's.
    assert finding.found.startswith("30 of 39 products")


@pytest.mark.parametrize("planted", ["a bias without gradient", "last row dropped"])
def test_a_bf16_path_that_computes_something_else_fails(planted: str) -> None:
    assert bf16(model_in(torch.bfloat16), LOSSES[planted]).verdict == "FAIL"


def updated(settings: TrainConfig | None = None, **planted: Any) -> Finding:
    settings = settings or config(weight_decay=0.1)
    functions: dict[str, Any] = {"step": train_step, "summed_loss": summed_loss}
    batches = [random_batch(seed=1), random_batch(seed=2)]
    return check_optimizer(tiny_model(), batches, settings, **functions | planted)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_update_is_torchs(weight_decay: float) -> None:
    finding = updated(config(weight_decay=weight_decay, adam_beta1=0.8, adam_beta2=0.9))
    assert finding.verdict == "PASS", finding.found
    assert finding.found.startswith("10 steps of 4 rows of 16 tokens: 20 parameters")


def _not_clipped(*arguments: Any, **given: Any) -> StepResult:
    return train_step(*arguments, **given | {"max_grad_norm": float("inf")})


def _clipped_by_the_square(
    model: Transformer, optimizer: Any, micro_batches: Any, **given: Any
) -> StepResult:
    kept = {name: p.detach().clone() for name, p in model.named_parameters()}
    nothing = torch.optim.SGD(model.parameters(), lr=0.0)
    norm = train_step(model, nothing, micro_batches, **given | {"learning_rate": 0.0}).grad_norm
    assert all(p.equal(kept[name]) for name, p in model.named_parameters())
    given["max_grad_norm"] /= norm
    return train_step(model, optimizer, micro_batches, **given)


def _rate_ignored(*arguments: Any, **given: Any) -> StepResult:
    return train_step(*arguments, **given | {"learning_rate": 0.1 * given["learning_rate"]})


def _norm_after_clipping(*arguments: Any, **given: Any) -> StepResult:
    result = train_step(*arguments, **given)
    return replace(result, grad_norm=min(result.grad_norm, given["max_grad_norm"]))


@pytest.mark.parametrize(
    "step", [_not_clipped, _clipped_by_the_square, _rate_ignored, _norm_after_clipping]
)
def test_another_step_fails(step: Callable[..., StepResult]) -> None:
    assert updated(step=step).verdict == "FAIL"


def _decaying_norms(model: Transformer, settings: TrainConfig) -> torch.optim.Optimizer:
    optimizer = build_optimizer(model, settings)
    for group in optimizer.param_groups:
        group["weight_decay"] = settings.weight_decay
    return optimizer


def _decaying_nothing(model: Transformer, settings: TrainConfig) -> torch.optim.Optimizer:
    return build_optimizer(model, settings.model_copy(update={"weight_decay": 0.0}))


def _other_betas(model: Transformer, settings: TrainConfig) -> torch.optim.Optimizer:
    return build_optimizer(model, settings.model_copy(update={"adam_beta2": 0.999}))


def _coupled_decay(model: Transformer, settings: TrainConfig) -> torch.optim.Optimizer:
    return torch.optim.Adam(
        model.parameters(),
        lr=0.0,
        betas=(settings.adam_beta1, settings.adam_beta2),
        weight_decay=settings.weight_decay,
    )


@pytest.mark.parametrize(
    "build", [_decaying_norms, _decaying_nothing, _other_betas, _coupled_decay]
)
def test_another_optimizer_fails(
    build: Callable[[Transformer, TrainConfig], torch.optim.Optimizer],
) -> None:
    assert updated(build=build).verdict == "FAIL"


def changed(model: Transformer | None = None, **planted: Any) -> Finding:
    functions: dict[str, Any] = {"step": train_step, "summed_loss": summed_loss}
    return check_parameters_change(
        model or model_with_biases(), random_batch(), config(), **functions | planted
    )


def test_every_parameter_moves_by_the_rate() -> None:
    finding = changed()
    assert finding.verdict == "PASS", finding.found
    assert finding.found.startswith("26 of 26")


def _layer_frozen(model: Transformer, *arguments: Any, **given: Any) -> StepResult:
    kept = {name: p.detach().clone() for name, p in model.named_parameters()}
    result = train_step(model, *arguments, **given)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("model.layers.1."):
                parameter.copy_(kept[name])
    return result


def _twice(*arguments: Any, **given: Any) -> StepResult:
    train_step(*arguments, **given)
    return train_step(*arguments, **given)


def _says_another_rate(*arguments: Any, **given: Any) -> StepResult:
    result = train_step(*arguments, **given)
    return replace(result, lr_applied=0.0)


@pytest.mark.parametrize("step", [_layer_frozen, _twice, _rate_ignored, _says_another_rate])
def test_parameters_that_move_otherwise_fail(step: Callable[..., StepResult]) -> None:
    assert changed(step=step).verdict == "FAIL"


def test_a_parameter_without_a_gradient_fails() -> None:
    name = "model.layers.1.self_attn.v_proj.bias"
    finding = changed(summed_loss=_without(name))
    assert finding.verdict == "FAIL"
    assert finding.found == f"{name} without a finite, non-zero gradient"


def test_a_parameter_that_is_not_finite_fails() -> None:
    model = model_with_biases()
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.bias[3] = float("inf")
    finding = changed(model)
    assert finding.verdict == "FAIL"
    assert finding.found == "model.layers.0.self_attn.q_proj.bias not finite"


def test_decay_alone_is_no_movement() -> None:
    def decays_only(model: Transformer, *arguments: Any, **given: Any) -> StepResult:
        given["max_grad_norm"] = 1e-30
        return train_step(model, *arguments, **given)

    assert changed(step=decays_only).verdict == "FAIL"


def recomputed(model: Transformer, loss: Loss = summed_loss) -> Finding:
    batch = random_batch(rows=3, counted=[16, 5, 0])
    batch.document_numbers_BT[:, 7:] = 1
    return check_recomputed(model, batch, document_mask=True, summed_loss=loss)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_f26_recomputed_blocks_give_the_gradients_of_kept_ones(dtype: torch.dtype) -> None:
    model = model_in(dtype)
    model.model.recomputes_blocks = True
    assert recomputed(model).verdict == "PASS"
    assert model.model.recomputes_blocks


def test_f26_another_mask_the_second_time_is_seen() -> None:
    model, passes = tiny_model(), list[int]()

    def hook(_block: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        x_BTD, attend, *rest = arguments
        passes.append(1)
        triangle = causal_mask(0, x_BTD.shape[1], device=x_BTD.device)
        everything = masked(triangle.expand(len(x_BTD), -1, -1))
        return (x_BTD, everything if len(passes) == 2 else attend, *rest)

    model.model.layers[1].register_forward_pre_hook(hook)
    finding = recomputed(model)
    assert finding.verdict == "FAIL"
    assert len(passes) == 3


def test_f26_blocks_that_are_not_computed_again_prove_nothing() -> None:
    def forgetful(model: Transformer, *arguments: Any) -> Tensor:
        model.model.recomputes_blocks = False
        return summed_loss(model, *arguments)

    finding = recomputed(tiny_model(), forgetful)
    assert finding.verdict == "UNKNOWN"
    assert "computed [1, 1] times" in finding.found
