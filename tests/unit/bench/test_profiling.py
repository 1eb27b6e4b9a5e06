"""What a profile tells: shapes and parents of eager work, and the names of compiled kernels."""

import pytest
import torch
from torch import Tensor

from apr.bench.parts import Operation
from apr.bench.profiling import named_kernels, profile_steps

CPU = torch.device("cpu")


def scores(x: Tensor) -> Tensor:
    return torch.softmax(x * 2.0, dim=-1)


def operations_of(compiled: bool) -> list[Operation]:
    function = torch.compile(scores) if compiled else scores
    x = torch.ones(64, 64)
    try:
        function(x)
    except torch._inductor.exc.InductorError as err:
        pytest.skip(f"no compiler: {err}")

    def step() -> None:
        function(x)

    found, elapsed_s = profile_steps(step, CPU, num_steps=2)
    assert 0.0 < sum(each.own_s for each in found) < 1.5 * elapsed_s
    return found


def test_eager_work_has_names_shapes_and_parents() -> None:
    found = operations_of(compiled=False)
    softmax = [each for each in found if each.name == "aten::_softmax"]
    assert len(softmax) == 2
    assert softmax[0].shapes == ((64, 64),)
    assert softmax[0].parents == ("aten::softmax",)


@pytest.mark.filterwarnings("ignore:.*script_method. is deprecated:DeprecationWarning")
def test_compiled_kernels_say_their_names_only_when_asked() -> None:
    """Without the names a profile of compiled code is one lump."""
    torch._dynamo.reset()
    assert not any("cpp_fused" in each.name for each in operations_of(compiled=True))
    with named_kernels():
        assert any("cpp_fused__softmax" in each.name for each in operations_of(compiled=True))
