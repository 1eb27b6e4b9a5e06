"""Ctrl-C and SIGTERM as a request to stop at the next step, asked twice as an order."""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from apr.cli import output


@contextmanager
def graceful_stop() -> Generator[Callable[[], bool]]:
    """Yield a question, `has a stop been asked for?`; a second signal interrupts at once."""
    asked = False

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        output.notify("stopping after this step and saving; once more to stop at once")

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
