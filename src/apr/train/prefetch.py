"""The next batch, built while the present step runs.

On a CPU nothing is gained: a batch takes a thousandth of its step (docs/log.md), and a thread would
take its core from the kernels. A GPU waits for every millisecond in which nothing is asked of it.
"""

from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from apr.train.batches import Batch


class Batches(Protocol):
    """Whatever knows the batch of every step; `apr.train.mixture.BatchOrder` does."""

    def batch(self, step: int) -> Batch:
        """The batch of step `step`, the first being 1."""
        ...


class Prefetched:
    """An order of batches that builds the one after the one asked for, in a thread.

    Any step may be asked for at any time: what was built ahead is only used for its own step. What
    goes wrong in the thread is raised, as it is, where that step's batch is asked for.
    """

    def __init__(
        self, order: Batches, background: ThreadPoolExecutor, *, last_step: int, pinned: bool
    ) -> None:
        self._order = order
        self._background = background
        self._last_step = last_step
        self._pinned = pinned
        self._ahead: tuple[int, Future[Batch]] | None = None

    def batch(self, step: int) -> Batch:
        """The batch of step `step`; the next one is begun."""
        ahead, self._ahead = self._ahead, None
        future = ahead[1] if ahead and ahead[0] == step else self._begin(step)
        batch = future.result()
        if step < self._last_step:
            self._ahead = (step + 1, self._begin(step + 1))
        return batch

    def _begin(self, step: int) -> Future[Batch]:
        return self._background.submit(self._build, step)

    def _build(self, step: int) -> Batch:
        batch = self._order.batch(step)
        return pinned_copy(batch) if self._pinned else batch


@contextmanager
def prefetched(order: Batches, *, last_step: int, pinned: bool) -> Generator[Prefetched]:
    """Build one batch ahead until the end of the block, however that comes; then the thread ends.

    `pinned` keeps ids where a CUDA device copies them from without a halt.
    """
    background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
    try:
        yield Prefetched(order, background, last_step=last_step, pinned=pinned)
    finally:
        background.shutdown(cancel_futures=True)


def pinned_copy(batch: Batch) -> Batch:
    """The same batch in page-locked memory; needs CUDA."""

    def pinned(ids_BT: NDArray[np.int64]) -> NDArray[np.int64]:
        return torch.from_numpy(ids_BT).pin_memory().numpy()

    return replace(
        batch,
        input_ids_BT=pinned(batch.input_ids_BT),
        target_ids_BT=pinned(batch.target_ids_BT),
        document_numbers_BT=pinned(batch.document_numbers_BT),
    )
