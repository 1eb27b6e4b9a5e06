"""Do the fast paths of a run give what the plain ones give: compiled kernels, and bf16."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from apr.model.transformer import Transformer
from apr.train.batches import Batch
from apr.train.gates import Finding
from apr.train.gradients_gate import (
    LEAST_AGREEMENT,
    Gradients,
    agreement,
    fp32_gradients,
    measure_gradients,
)
from apr.train.loss import summed_loss
from apr.train.selftest.distances import farthest
from apr.train.selftest.small_run import size_of
from apr.train.step import SummedLoss

# Fixed before any run. In fp32 kernels differ by the order of their sums, some 1e-6 of a gradient;
# in bf16 each may be as far from fp32 as the eager ones are, times two.
_LARGEST_FP32_LOSS_NATS, _LARGEST_FP32_DISTANCE = 1e-5, 2e-4
_LARGEST_BF16_RATIO, _BF16_FLOOR = 2.0, 0.02
_LARGEST_BF16_LOSS_NATS = 0.01
_FIX_COMPILED = (
    "run with --no-compile; or, where the reduction of two orders is to blame, with "
    "TORCHINDUCTOR_MIX_ORDER_REDUCTION=0, and report this"
)
_PRODUCTS = (
    torch.ops.aten.mm,
    torch.ops.aten.addmm,
    torch.ops.aten.addmm_,
    torch.ops.aten.bmm,
    torch.ops.aten.baddbmm,
    # Attention in one kernel is two products of queries, keys and values.
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten._scaled_dot_product_cudnn_attention,
    torch.ops.aten._flash_attention_forward,
)


def check_compiled(
    model: Transformer, batch: Batch, *, document_mask: bool, compiled_loss: SummedLoss
) -> Finding:
    """Compiled kernels give the loss and the gradient of every parameter that eager ones give.

    On the run's own shape and precision; biases and norms are parameters like the others. A
    compiled gradient in bf16 is measured against fp32, and eager bf16 says how far it may be.
    """
    ours = measure_gradients(model, batch, compiled_loss, document_mask=document_mask)
    eager = measure_gradients(model, batch, summed_loss, document_mask=document_mask)
    apart_nats = abs(ours.loss_nats - eager.loss_nats)
    if model.compute_dtype is torch.float32:
        distance = farthest(ours.tensors, eager.tensors)
        agrees = apart_nats <= _LARGEST_FP32_LOSS_NATS and distance.value <= _LARGEST_FP32_DISTANCE
        return Finding(
            "PASS" if agrees else "FAIL",
            f"loss within {apart_nats:.1e} nats, {distance.num_compared} gradients within "
            f"{distance}, over {size_of(batch)}",
            f"within {_LARGEST_FP32_LOSS_NATS:g} nats and {_LARGEST_FP32_DISTANCE:g} of eager",
            _FIX_COMPILED,
        )
    exact = fp32_gradients(model, batch, document_mask=document_mask)
    worst, name = _largest_ratio(ours, eager, exact)
    agrees = apart_nats <= _LARGEST_BF16_LOSS_NATS and worst <= _LARGEST_BF16_RATIO
    return Finding(
        "PASS" if agrees else "FAIL",
        f"loss within {apart_nats:.1e} nats, {len(exact.tensors)} gradients at most {worst:.2f} "
        f"times as far from fp32 as eager bf16 ({name}), over {size_of(batch)}",
        f"within {_LARGEST_BF16_LOSS_NATS:g} nats of eager and {_LARGEST_BF16_RATIO:g} times as "
        "far from fp32",
        _FIX_COMPILED,
    )


def check_bf16(
    model: Transformer, batch: Batch, *, document_mask: bool, accelerated_loss: SummedLoss
) -> Finding:
    """In bf16 the loss and every gradient lie near fp32's, and bf16 it is.

    Two-sided: at no distance at all nothing was computed in bf16, and every matrix product of a
    forward and backward pass must have inputs of bf16.
    """
    expected = (
        f"every product in bf16; above 0 and at most {_LARGEST_BF16_LOSS_NATS:g} nats, "
        f"{LEAST_AGREEMENT}"
    )
    with _counting_products() as counts:
        eager = measure_gradients(model, batch, summed_loss, document_mask=document_mask)
    products = sum(counts.values())
    if not products:
        return Finding("UNKNOWN", "no matrix product was seen", expected, "report this")
    ours = measure_gradients(model, batch, accelerated_loss, document_mask=document_mask)
    exact = fp32_gradients(model, batch, document_mask=document_mask)
    apart_nats = abs(ours.loss_nats - exact.loss_nats)
    moved_nats = abs(eager.loss_nats - exact.loss_nats)
    agreed = agreement(ours, exact)
    agrees = (
        counts.get(torch.bfloat16, 0) == products
        and moved_nats > 0.0
        and 0.0 < apart_nats <= _LARGEST_BF16_LOSS_NATS
        and agreed.is_close
    )
    return Finding(
        "PASS" if agrees else "FAIL",
        f"{counts.get(torch.bfloat16, 0)} of {products} products in bf16; {apart_nats:.1e} nats "
        f"apart, {agreed}, over {size_of(batch)}",
        expected,
        "run with --precision fp32, and report this",
    )


def _largest_ratio(ours: Gradients, eager: Gradients, exact: Gradients) -> tuple[float, str]:
    """How much farther from fp32 than eager a gradient is; a small share is always allowed."""
    worst, worst_name = 0.0, "none"
    for name, reference in exact.tensors.items():
        floor = _BF16_FLOOR * exact.norms[name]
        ours_apart = float((ours.tensors[name] - reference).double().norm())
        eager_apart = float((eager.tensors[name] - reference).double().norm())
        ratio = ours_apart / max(eager_apart, floor) if ours_apart else 0.0
        if not ratio <= worst:
            worst, worst_name = ratio, name
    return worst, worst_name


@contextmanager
def _counting_products() -> Generator[dict[torch.dtype, int]]:
    """Matrix products inside the block, by the dtype of their inputs, backward included."""
    counts: dict[torch.dtype, int] = {}

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(
            self,
            func: Callable[..., Any],
            types: Any,
            args: tuple[Any, ...] = (),
            kwargs: dict[str, Any] | None = None,
        ) -> Any:
            if func.overloadpacket in _PRODUCTS:  # pyright: ignore[reportFunctionMemberAccess]
                dtypes = {
                    each.dtype
                    for each in args
                    if isinstance(each, torch.Tensor) and each.is_floating_point()
                }
                # A product whose inputs disagree counts as the widest.
                widest = max(dtypes, key=lambda dtype: dtype.itemsize)
                counts[widest] = counts.get(widest, 0) + 1
            return func(*args, **(kwargs or {}))

    with Counting():
        yield counts
