"""Batches built ahead are those of their steps; faults keep their class; the thread ends."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from tests.faults.test_f28_non_finite_steps import prepared, train
from tests.run_data import RunData
from tests.unit.train.batch_fixture import random_batch

from apr.errors import DamagedFile
from apr.train.batches import Batch
from apr.train.prefetch import pinned_copy, prefetched
from apr.train.train_state import TrainState

LAST_STEP = 6


@dataclass
class Watched:
    """An order that remembers what was built, and where; `broken` is a step that cannot be."""

    broken: int | None = None
    built: list[int] = field(default_factory=list[int])
    threads: set[str] = field(default_factory=set[str])

    def batch(self, step: int) -> Batch:
        self.built.append(step)
        self.threads.add(threading.current_thread().name)
        if step == self.broken:
            raise DamagedFile("shards.truncated", "x.bin", found="a", expected="b", fix="c")
        return random_batch(seed=step)


def same(one: Batch, other: Batch) -> bool:
    return one.row_indices == other.row_indices and all(
        bool((getattr(one, name) == getattr(other, name)).all())
        for name in ("input_ids_BT", "target_ids_BT", "document_numbers_BT")
    )


def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it did not happen")


def no_thread() -> bool:
    return not any(thread.name.startswith("batches") for thread in threading.enumerate())


@pytest.mark.parametrize(
    "steps", [[1, 2, 3, 4, 5, 6], [4, 5, 6], [2, 5, 3, 3, 1]], ids=["all", "resumed", "any order"]
)
def test_every_step_gets_its_own_batch(steps: list[int]) -> None:
    order = Watched()
    with prefetched(order, last_step=LAST_STEP, pinned=False) as ahead:
        for step in steps:
            assert same(ahead.batch(step), random_batch(seed=step))
    assert max(order.built) <= LAST_STEP
    assert all(name.startswith("batches") for name in order.threads)
    assert no_thread()


def test_the_next_batch_is_there_before_it_is_asked_for() -> None:
    order = Watched()
    with prefetched(order, last_step=LAST_STEP, pinned=False) as ahead:
        ahead.batch(1)
        until(lambda: order.built == [1, 2])
        ahead.batch(2)
        until(lambda: order.built == [1, 2, 3])
    # One ahead, never two; and none twice.
    assert order.built == [1, 2, 3]


def test_what_goes_wrong_is_raised_at_its_own_step_as_what_it_is() -> None:
    order = Watched(broken=3)
    with prefetched(order, last_step=LAST_STEP, pinned=False) as ahead:
        ahead.batch(1)
        ahead.batch(2)
        until(lambda: 3 in order.built)
        with pytest.raises(DamagedFile) as refused:
            ahead.batch(3)
    assert refused.value.id == "shards.truncated"
    assert refused.value.exit_code == 4
    assert no_thread()


def test_what_nobody_asked_for_is_no_failure() -> None:
    order = Watched(broken=2)
    with prefetched(order, last_step=LAST_STEP, pinned=False) as ahead:
        ahead.batch(1)
        until(lambda: 2 in order.built)
    assert no_thread()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_thread_ends_with_the_run_that_fails(error: type[BaseException]) -> None:
    def run() -> None:
        with prefetched(Watched(), last_step=LAST_STEP, pinned=False) as ahead:
            ahead.batch(1)
            raise error

    with pytest.raises(error):
        run()
    assert no_thread()


def test_a_run_is_the_same_with_batches_built_ahead(run_data: RunData, tmp_path: Path) -> None:
    finals: list[dict[str, torch.Tensor]] = []
    for name in ("built", "ahead"):
        run = prepared(run_data, tmp_path / name, num_steps=4, eval_every=4)
        with prefetched(run.order, last_step=4, pinned=False) as order:
            train(run, TrainState(), [], order if name == "ahead" else None)
        finals.append(run.model.state_dict())
    assert all(tensor.equal(finals[1][name]) for name, tensor in finals[0].items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="only CUDA has page-locked memory")
def test_a_pinned_copy_is_the_same_batch_and_is_pinned() -> None:
    batch = random_batch()
    copy = pinned_copy(batch)
    assert same(copy, batch)
    assert torch.from_numpy(copy.input_ids_BT).is_pinned()
