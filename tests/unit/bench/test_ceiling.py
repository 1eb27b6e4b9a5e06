"""The measured ceiling: what is counted, and what happens where nothing can be measured."""

from collections.abc import Callable
from itertools import count

import pytest
import torch
from torch import Tensor

from apr.bench.ceiling import measure_ceiling

CPU = torch.device("cpu")


def ticking(step_s: float) -> Callable[[], float]:
    readings = count()
    return lambda: next(readings) * step_s


def nothing(left: Tensor, _right: Tensor) -> Tensor:
    return left


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_this_cpu_has_one(dtype: torch.dtype) -> None:
    state = torch.get_rng_state()
    found = measure_ceiling(CPU, dtype, limit_s=0.05)
    assert found.flops_per_s is not None
    assert found.flops_per_s > 1e6
    assert found.precision == {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]
    assert found.device_name
    assert torch.equal(torch.get_rng_state(), state), "no number of the caller's was drawn"


def test_two_flops_per_multiplication() -> None:
    """A clock that says a sixteenth of a second at each look: two looks make a window of 0.125."""
    found = measure_ceiling(
        CPU, torch.float32, limit_s=1.25, product=nothing, clock=ticking(0.0625)
    )
    assert found.flops_per_s == 2 * 512**3 * 2 / 0.125
    assert "512 x 512" in found.source


def test_the_best_size_is_the_ceiling() -> None:
    """Where every product takes a hundredth of a second, the largest is the fastest."""
    products = count()
    made = [0]

    def product(left: Tensor, _right: Tensor) -> Tensor:
        made[0] = next(products)
        return left

    found = measure_ceiling(
        CPU, torch.float32, limit_s=1.0, product=product, clock=lambda: made[0] / 100
    )
    assert found.flops_per_s == pytest.approx(2 * 2048**3 * 100)
    assert "2048 x 2048" in found.source


def test_a_product_that_fails_is_no_ceiling() -> None:
    def broken(_left: Tensor, _right: Tensor) -> Tensor:
        raise RuntimeError("planted\nsecond line")

    found = measure_ceiling(CPU, torch.float32, product=broken)
    assert found.flops_per_s is None
    assert found.source == "no product could be measured: RuntimeError: planted"


def test_a_device_without_sizes_is_no_ceiling() -> None:
    found = measure_ceiling(torch.device("meta"), torch.float32)
    assert found.flops_per_s is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cuda_device_has_one() -> None:
    found = measure_ceiling(torch.device("cuda", 0), torch.bfloat16, limit_s=0.5)
    assert found.flops_per_s is not None
    assert found.flops_per_s > 1e12
