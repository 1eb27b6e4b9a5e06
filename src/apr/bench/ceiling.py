"""The fastest matrix product of this device, measured just now: what utilisation is a share of.

The sheet of a device says what it could do at clocks that it does not hold; a product of large
square matrices, repeated, is what it does. Both layouts of the second matrix are tried, for
a library may have a better kernel for one of them.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from apr.train.acceleration import device_name

_SIZES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192)}
Product = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Ceiling:
    """FLOP/s of the best matrix product; None where there is none, and `source` says why."""

    flops_per_s: float | None
    source: str
    device_name: str
    precision: str

    def as_dict(self) -> dict[str, Any]:
        """For a record."""
        return asdict(self)


def measure_ceiling(
    device: torch.device,
    dtype: torch.dtype,
    *,
    limit_s: float = 1.0,
    product: Product = torch.mm,
    clock: Callable[[], float] = time.perf_counter,
) -> Ceiling:
    """The best rate of one repeated product, over about `limit_s` in all.

    Half of the time finds the best size and layout, the other half repeats that one; the rate is
    the best of windows of a tenth of `limit_s`, waited for. No random number of the caller's is
    drawn.

    Units: a product of n x n matrices is 2 n^3 FLOPs.
    """
    name, precision = device_name(device), "bf16" if dtype is torch.bfloat16 else "fp32"
    timer = _Timer(device, dtype, window_s=limit_s / 10, product=product, clock=clock)
    try:
        rate, size, layout = timer.best(_SIZES[device.type], limit_s=limit_s)
    except (RuntimeError, MemoryError, KeyError) as err:
        reason = f"{type(err).__name__}: {str(err).partition(chr(10))[0]:.120}"
        return Ceiling(None, f"no product could be measured: {reason}", name, precision)
    how = f"{precision} products of {size} x {size} matrices ({layout}), measured just now"
    return Ceiling(rate, how, name, precision)


class _Timer:
    """Times products on one device."""

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        *,
        window_s: float,
        product: Product,
        clock: Callable[[], float],
    ) -> None:
        self._device = device
        self._dtype = dtype
        self._window_s = window_s
        self._product = product
        self._clock = clock

    def best(self, sizes: tuple[int, ...], *, limit_s: float) -> tuple[float, int, str]:
        """The best rate, and the size and layout that reached it."""
        rate, size, layout, matrices = 0.0, 0, "", None
        for next_size in sizes:
            # Eight times the work of the size before: left out where it would take too long.
            if rate and 2 * next_size**3 / rate > limit_s / 4:
                break
            left, right = self._matrices(next_size)
            for next_layout, second in (("plain", right), ("the second transposed", right.t())):
                self._product(left, second)
                self._wait()
                found = self._rate(left, second)
                if found > rate:
                    rate, size, layout, matrices = found, next_size, next_layout, (left, second)
        assert matrices is not None, "no size was tried"
        until_s = self._clock() + limit_s / 2
        while self._clock() < until_s:
            rate = max(rate, self._rate(*matrices))
        return rate, size, layout

    def _rate(self, left: Tensor, right: Tensor) -> float:
        """FLOP/s over one window of whole products, waited for."""
        count, done = 1, 0
        started_s = self._clock()
        while True:
            for _ in range(count):
                self._product(left, right)
            self._wait()
            done += count
            elapsed_s = self._clock() - started_s
            if elapsed_s >= self._window_s:
                return 2.0 * left.shape[0] ** 3 * done / elapsed_s
            # Waiting after every product would measure the waiting.
            count = max(1, min(done, int(done * (self._window_s / max(elapsed_s, 1e-9) - 1))))

    def _matrices(self, size: int) -> tuple[Tensor, Tensor]:
        # Ordinary numbers: a chip that multiplies zeros draws less power and clocks higher.
        generator = torch.Generator(self._device).manual_seed(0)
        left, right = (
            torch.randn(size, size, generator=generator, device=self._device).to(self._dtype)
            for _ in range(2)
        )
        return left, right

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
