"""Work on several files at once: threads, as long as Python itself has little to do."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def by_threads(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, num_threads: int
) -> Iterator[_Result]:
    """The results in the order of the items; what was not begun when one fails is left."""
    if num_threads <= 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(num_threads) as pool:
        yield from pool.map(function, items)
