"""Calls of a library that remembers per thread, in a thread that is replaced now and then.

fastokens keeps the ids of every word that it has met, up to hundreds of megabytes, and has no
setting for it. It keeps them per thread, and a thread that ends gives them back: so memory stops
growing with the text, for the time it takes to meet the common words again.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")

FORGET_AFTER_CHARACTERS = 16_000_000
"""A thread that ends so late costs next to nothing (docs/log.md)."""


class FreshThreads:
    """One thread after another, and none before the first call: a process may fork until then.

    For one caller at a time.
    """

    def __init__(self, *, forget_after_characters: float = FORGET_AFTER_CHARACTERS) -> None:
        self._forget_after_characters = forget_after_characters
        self._num_characters = 0
        self._thread = ThreadPoolExecutor(1)

    def call(self, function: Callable[[Sequence[str]], _Result], texts: Sequence[str]) -> _Result:
        """What the function returns or raises for these texts."""
        self._num_characters += sum(map(len, texts))
        try:
            return self._thread.submit(function, texts).result()
        finally:
            if self._num_characters >= self._forget_after_characters:
                # Not waited for: by the next call it has ended, and the next thread gets the
                # allocator's arena that it had, instead of one more.
                self._thread.shutdown(wait=False)
                self._thread = ThreadPoolExecutor(1)
                self._num_characters = 0
