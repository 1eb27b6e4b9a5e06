"""What a compiled run demands of torch's compiler, beside the kernels themselves."""

from collections.abc import Iterator

import pytest
import torch
from torch._dynamo import config as tracing
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._inductor import config as compiling

from apr.train.acceleration import Acceleration


@pytest.fixture
def torch_defaults() -> Iterator[None]:
    """By default reductions are mixed, DDP cuts blocks, and a limit ends in eager kernels.

    By torch's own patch: pytest's takes a setting away where it should give it back.
    """
    with (
        compiling.patch({"triton.mix_order_reduction": True}),
        tracing.patch(optimize_ddp=True, fail_on_recompile_limit_hit=False, recompile_limit=8),
    ):
        yield
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_loss_goes_by_settings_that_are_known_to_be_right(torch_defaults: None) -> None:
    acceleration = Acceleration(torch.device("cpu"), torch.float32, True, ())
    head_loss = acceleration.head_loss_function()
    assert compiling.triton.mix_order_reduction is False
    assert acceleration.environment()["mix_order_reduction"] is False
    assert tracing.optimize_ddp is False
    # One shape more than the limit: an error, where torch would go on uncompiled.
    torch._dynamo.reset()
    tracing.recompile_limit = 1
    weight_VD = torch.randn(7, 4, requires_grad=True)

    def lose(rows: int) -> None:
        head_loss(torch.randn(rows, 3, 4), weight_VD, torch.zeros(rows, 3, dtype=torch.int64))

    lose(1)
    with pytest.raises(FailOnRecompileLimitHit):
        lose(2)


def test_an_eager_run_says_nothing_of_a_compiler() -> None:
    acceleration = Acceleration(torch.device("cpu"), torch.float32, False, ())
    assert acceleration.environment()["mix_order_reduction"] is None
