"""Results come in order, and a failure ends the work."""

import threading

import pytest

from apr.shards.threads import by_threads


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_results_are_in_the_order_of_the_items(num_threads: int) -> None:
    assert list(by_threads(lambda item: item * item, range(20), num_threads=num_threads)) == [
        item * item for item in range(20)
    ]
    assert list(by_threads(str, [], num_threads=num_threads)) == []


def test_two_threads_are_at_work_at_once() -> None:
    """Each waits for the other; one alone would wait for ever."""
    both = threading.Barrier(2, timeout=10)
    assert list(by_threads(lambda item: (both.wait(), item)[1], [3, 4], num_threads=2)) == [3, 4]


@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_failure_is_raised_and_leaves_the_rest(num_threads: int) -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 1:
            raise OSError("planted")
        return item

    with pytest.raises(OSError, match="planted"):
        list(by_threads(work, range(1000), num_threads=num_threads))
    assert 1 in begun
    assert len(begun) < 1000
