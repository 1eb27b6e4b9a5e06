"""What tests of training share."""

from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> CompileCounterWithBackend:
    """How often something was compiled, by a compiler that needs no other program."""
    torch._dynamo.reset()
    found = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=found))
    return found
