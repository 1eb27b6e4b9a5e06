"""A request to stop: at once while there is nothing to save, then after saving."""

import os
import signal
from contextlib import suppress

import pytest

from apr.cli.stopping import graceful_stop
from apr.errors import Interrupted, Refusal

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


def unsaved() -> Interrupted:
    return Interrupted("nothing was written")


def refusal() -> Refusal:
    return Refusal("x.y", "here", found=1, expected=2, fix="do")


@SIGNALS
def test_with_nothing_to_save_a_signal_stops_at_once(number: signal.Signals) -> None:
    said: list[str] = []

    def stopped() -> None:
        with graceful_stop(said.append, unsaved=unsaved):
            os.kill(os.getpid(), number)
            pytest.fail("it went on")

    with pytest.raises(Interrupted, match="nothing was written"):
        stopped()
    assert said == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("error", [refusal(), RuntimeError("a compiler was killed")])
def test_what_fails_because_of_a_stop_is_a_stop(error: Exception) -> None:
    """An interrupt may be lost in a finalizer, and the compiler that died of it be reported."""

    def stopped() -> None:
        with graceful_stop(print, unsaved=unsaved):
            with suppress(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
            raise error

    with pytest.raises(Interrupted, match="nothing was written"):
        stopped()


@pytest.mark.parametrize("is_saving", [False, True])
def test_what_fails_by_itself_is_a_failure(is_saving: bool) -> None:
    def failed() -> None:
        with graceful_stop(print, unsaved=unsaved) as stopping:
            if is_saving:
                stopping.save_from_here()
                os.kill(os.getpid(), signal.SIGINT)
            raise refusal()

    with pytest.raises(Refusal, match="here"):
        failed()


@SIGNALS
def test_where_something_is_saved_the_first_signal_asks_and_the_second_interrupts(
    number: signal.Signals,
) -> None:
    said: list[str] = []

    def stopped_twice() -> None:
        with graceful_stop(said.append, unsaved=unsaved) as stopping:
            stopping.save_from_here()
            assert not stopping.should_stop()
            os.kill(os.getpid(), number)
            assert stopping.should_stop()
            assert said == ["stopping after this step and saving; once more to stop at once"]
            os.kill(os.getpid(), number)
            pytest.fail("it went on")

    with pytest.raises(KeyboardInterrupt):
        stopped_twice()
