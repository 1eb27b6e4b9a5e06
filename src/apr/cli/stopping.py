"""What signals do: a request to stop at the next step where a verb asks, else Ctrl-C's way."""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType


def end_like_ctrl_c() -> None:
    """Let a batch system's SIGTERM and a lost terminal's SIGHUP clean up, and end with 130.

    What is ignored stays ignored, as under nohup.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def graceful_stop(say: Callable[[str], None]) -> Generator[Callable[[], bool]]:
    """Yield a question, `has a stop been asked for?`; a second signal interrupts at once."""
    asked = False

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        say("stopping after this step and saving; once more to stop at once")

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def save_on_signal(say: Callable[[str], None]) -> Generator[Callable[[], bool]]:
    """Yield a question, `has a checkpoint been asked for?`, which SIGUSR1 answers with yes once."""
    asked = False

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        say("saving after this step, and going on")

    def take() -> bool:
        nonlocal asked
        was_asked, asked = asked, False
        return was_asked

    before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        yield take
    finally:
        signal.signal(signal.SIGUSR1, before)
