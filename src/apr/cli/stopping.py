"""What signals do: a request to stop at the next step where a verb asks, else Ctrl-C's way."""

import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from apr.errors import Interrupted


def end_like_ctrl_c() -> None:
    """Let a batch system's SIGTERM and a lost terminal's SIGHUP clean up, and end with 130.

    What is ignored stays ignored, as under nohup.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _interrupt)


def leave(exit_code: int) -> NoReturn:
    """End the process at once, with all that it has said."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(exit_code)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@dataclass
class Stopping:
    """What has become of a request to stop."""

    say: Callable[[str], None]
    is_asked: bool = False
    is_saving: bool = False

    def should_stop(self) -> bool:
        """Whether a stop has been asked for."""
        return self.is_asked

    def save_from_here(self) -> None:
        """From here on the first signal is a request, which the verb answers by saving."""
        self.is_saving = True

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """Note the request, and interrupt where there is nothing to save, or at a second one."""
        is_first, self.is_asked = not self.is_asked, True
        if not (is_first and self.is_saving):
            raise KeyboardInterrupt
        self.say("stopping after this step and saving; once more to stop at once")


@contextmanager
def graceful_stop(
    say: Callable[[str], None], *, unsaved: Callable[[], Interrupted]
) -> Generator[Stopping]:
    """Have SIGINT and SIGTERM stop at once until there is something to save, then gracefully.

    However a verb ends that was stopped with nothing to save, it ends with `unsaved`: a terminal
    sends Ctrl-C to every process, so that a compiler dies of it, and what waits for it may fail.
    """
    stopping = Stopping(say)
    before = {
        number: signal.signal(number, stopping.on_signal)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stopping
    except (Exception, KeyboardInterrupt):
        if stopping.is_asked and not stopping.is_saving:
            raise unsaved() from None
        raise
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
