"""Copies of a run's tensors in the host's memory, taken while its device computes on.

A CUDA device writes them by itself, beside what it computes; only what would change the tensors
has to wait, see `HostCopies.hold`. Nothing in a copy shows that it was taken too late, so the bits
of every tensor are summed on the device, in its turn, and in the copy before anybody uses it.

Source: CUDA C++ Programming Guide, page-locked host memory and asynchronous concurrent execution.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apr.errors import DamagedFile
from apr.train.parts import are_dealt_out, whole

# Of one block, so that it is locked once; tensors begin where any dtype may.
_ALIGNMENT_BYTES = 64


class HostCopies:
    """Copies of named tensors, taken again and again into the same memory.

    The names and shapes are those of the first time.
    """

    def __init__(self) -> None:
        self._device = torch.device("cpu")
        self._copies: dict[str, Tensor] = {}
        self._block: Tensor | None = None
        self._is_locked = False
        self._beside: torch.cuda.Stream | None = None
        self._taken: torch.Event | None = None
        self._sums: Tensor | None = None

    def take(self, live: Mapping[str, Tensor], *, keep: bool = True) -> dict[str, Tensor]:
        """Have every tensor copied as it is now; what is dealt out is put together first.

        Nobody may read a copy before `wait` has returned. Every rank must ask for what is dealt out
        at the same time; those that do not `keep` it get nothing.
        """
        self._device = next(iter(live.values())).device if live else self._device
        on_cuda = self._device.type == "cuda"
        if keep and not self._copies:
            self._make_room(live)
        # What is put together for this lives for a moment: it is copied in the device's turn.
        is_beside = on_cuda and not are_dealt_out(live.values())
        sums: list[Tensor] = []
        for name, tensor in live.items():
            together = whole(tensor).detach()
            # On a CPU a copy is there before anything can change what it is of.
            if keep and on_cuda:
                sums.append(_words(together).sum())
            if keep and not is_beside:
                self._copies[name].copy_(together, non_blocking=True)
        self._sums = torch.stack(sums) if sums else None
        if keep and on_cuda:
            now = torch.cuda.current_stream(self._device)
            self._taken = (self._copied_after(now, live) if is_beside else now).record_event()
        return dict(self._copies)

    def hold(self) -> None:
        """Have the device take the copies before anything that it is asked for from now on."""
        if self._taken is not None:
            torch.cuda.current_stream(self._device).wait_event(self._taken)

    def wait(self) -> None:
        """Return once the copies are there, and are what the device had when it was asked.

        Refuses: checkpoint.read-back.
        """
        if self._taken is not None:
            # A thread begins with the first device, and would take memory there for waiting.
            with torch.cuda.device(self._device):
                self._taken.synchronize()
        if self._sums is None:
            return
        sums, self._sums = self._sums.tolist(), None
        for (name, copy), expected in zip(self._copies.items(), sums, strict=True):
            # In numpy: torch would start threads of its own beside those that train.
            found = int(_words(copy).numpy().sum(dtype=np.int64))
            if found != expected:
                raise DamagedFile(
                    "checkpoint.read-back",
                    name,
                    found=f"a copy in the host's memory whose words add up to {found}",
                    expected=f"{expected}, as on the device when the copy was asked for",
                    fix="resume the run; if it happens again, look at the memory and the driver "
                    "of this machine",
                )

    def release(self) -> None:
        """Let the memory be like any other; call it before nobody holds it."""
        if self._taken is not None:
            self._taken.synchronize()
        if self._is_locked and self._block is not None:
            _cudart().cudaHostUnregister(self._block.data_ptr())
            self._is_locked = False

    def _copied_after(
        self, now: torch.cuda.Stream, live: Mapping[str, Tensor]
    ) -> torch.cuda.Stream:
        """Copy on a stream beside another one, once all is done that it was asked for."""
        self._beside = self._beside or torch.cuda.Stream(self._device)
        self._beside.wait_stream(now)
        with torch.cuda.stream(self._beside):
            for name, tensor in live.items():
                self._copies[name].copy_(tensor.detach(), non_blocking=True)
        return self._beside

    def _make_room(self, live: Mapping[str, Tensor]) -> None:
        starts, end = dict[str, int](), 0
        for name, tensor in live.items():
            starts[name] = end
            size_bytes = tensor.numel() * tensor.element_size()
            end += math.ceil(size_bytes / _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        self._block = torch.empty(end, dtype=torch.uint8)
        if self._device.type == "cuda" and end:
            self._is_locked = _lock(self._block, self._device)
        for name, tensor in live.items():
            size_bytes = tensor.numel() * tensor.element_size()
            part = self._block[starts[name] : starts[name] + size_bytes]
            self._copies[name] = part.view(tensor.dtype).view(tensor.shape)


def _lock(block: Tensor, device: torch.device) -> bool:
    """Let a CUDA device write to a block by itself, at its full speed; whether it may.

    Not by torch's `pin_memory`, which rounds up to a power of two.
    """
    if int(_cudart().cudaHostRegister(block.data_ptr(), block.nbytes, 0)) == 0:
        return True
    # CUDA keeps the refusal for whoever asks next, who would take it for its own.
    with suppress(RuntimeError):
        torch.zeros(1, device=device)
    return False


def _cudart() -> Any:
    return torch.cuda.cudart()


def _words(tensor: Tensor) -> Tensor:
    """The bits of a tensor as numbers that can be added up."""
    words = torch.int32 if tensor.element_size() == 4 else torch.uint8
    return tensor.detach().contiguous().view(-1).view(words)
