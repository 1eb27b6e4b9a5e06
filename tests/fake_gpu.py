"""A GPU that is not there: its tensors have a device, shapes and dtypes, and no numbers.

Torch raises where such a tensor meets one of the CPU, as it does for CUDA, and every place that
waits for the device is noted. The device is a backend of torch's own kind (PrivateUse1), which is
registered for the whole process: so the walks have a process of their own.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from apr.model.transformer import Transformer

_SOURCES = f"{Path(__file__).resolve().parents[1] / 'src' / 'apr'}/"
_ATEN = torch.ops.aten
# What is read where there is nothing to read: a loss in nats, a norm, a flag, an id.
_NUMBER, _WHOLE_NUMBER, _NUM_COUNTED = 40.0, 1, 3


class _Backend:
    """What torch asks the module of a backend for."""

    is_initialized = is_available = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    manual_seed_all = staticmethod(lambda _seed: None)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16])


_setup_privateuseone_for_python_backend("gpu", backend_module=_Backend())
GPU = torch.device("gpu", 0)


@contextmanager
def fake_gpu() -> Generator[list[str]]:
    """Inside, every tensor is fake; the list gets each place that waits for the device."""
    waits, generator = _Waits(), torch.Generator()
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        waits,
        # Doors to numbers that are torch's own; a CPU's generator is as good where none is drawn.
        patch.object(torch, "Generator", lambda _device="cpu": generator),
        patch.object(Tensor, "numpy", lambda tensor: np.full(tensor.shape, _NUMBER)),
    ):
        yield waits.places


def on_the_gpu(model: Transformer) -> Transformer:
    """The same modules with fake parameters, which torch's own `to` cannot give them."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            values = torch.empty(parameter.shape, dtype=parameter.dtype, device=GPU)
            setattr(module, name, nn.Parameter(values))
    return model


class _Waits(TorchDispatchMode):
    """Notes what waits for the device, and answers what a tensor without numbers cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tensor = args[0] if args and isinstance(args[0], Tensor) else None
        if tensor is not None and func is _ATEN._local_scalar_dense.default:
            self._note("reads a number", tensor)
            return _NUMBER if tensor.dtype.is_floating_point else _WHOLE_NUMBER
        if tensor is not None and func is _ATEN.nonzero.default:
            self._note("counts", tensor)
            return tensor.new_empty((_NUM_COUNTED, tensor.ndim), dtype=torch.int64)
        if tensor is not None and func is _ATEN._to_copy.default:
            to = torch.device(kwargs.get("device") or tensor.device)
            if to.type == "cpu":
                self._note("copies to the CPU", tensor)
            elif tensor.device != GPU:
                if not kwargs.get("non_blocking"):
                    self.places.append(f"{_place()} copies to the device")
                return torch.empty(tensor.shape, dtype=kwargs.get("dtype", tensor.dtype), device=to)
        if tensor is not None and func is _ATEN.copy_.default and tensor.device != GPU:
            self._note("copies to the CPU", args[1])
        if func.namespace == "aten":
            # In inference mode operations come whole, and the parts are what waits.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return func(*args, **kwargs)

    def _note(self, what: str, tensor: Tensor) -> None:
        if tensor.device == GPU:
            self.places.append(f"{_place()} {what}")


def _place() -> str:
    """The innermost file of this project that is running."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith(_SOURCES):
            return frame.f_code.co_filename.removeprefix(_SOURCES)
        frame = frame.f_back
    return "torch"
