"""A library that never forgets: its memory, its exceptions, and the threads it is called in."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

import pytest
from tests.peak_memory import measured

from apr.tokenizer.fresh_threads import FreshThreads

# Three million invented words, each of them once.
INVENTED = """
import itertools, json, string, sys
from tests.peak_memory import peak_kib
from tests.tokenizer_files import tokenizer
from apr.tokenizer.encoders import build_fast_encoder
used = tokenizer()
encoder = build_fast_encoder(
    used.definition, where=used.where, forget_after_characters=float(sys.argv[1])
)
words = map("".join, itertools.product(string.ascii_lowercase, repeat=6))

def encode(num_batches):
    for _ in range(num_batches):
        encoder.encode_flat([" ".join(itertools.islice(words, 20_000))])
    return peak_kib()

before = encode(10)
print(json.dumps((encode(140) - before) / 1024))
"""
# What it keeps for all threads together ends at some hundred; each thread would keep as much again.
LIMIT_MIB = 140


def grown_mib(forget_after_characters: float, monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    return float(str(measured(INVENTED, forget_after_characters)))


def test_memory_does_not_grow_with_the_words_that_were_met(monkeypatch: pytest.MonkeyPatch) -> None:
    assert grown_mib(400_000, monkeypatch) < LIMIT_MIB


def test_memory_would_grow_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault that the limit of the test above can see: nothing is ever forgotten."""
    assert grown_mib(float("inf"), monkeypatch) > LIMIT_MIB


class Library:
    """Answers with the thread it was called in, waits, or fails."""

    def thread(self, _texts: Sequence[str]) -> threading.Thread:
        return threading.current_thread()

    def fail(self, texts: Sequence[str]) -> None:
        raise ArithmeticError(texts[0])


def test_no_thread_before_the_first_call() -> None:
    before = threading.active_count()
    threads = FreshThreads()
    assert threading.active_count() == before
    assert threads.call(Library().thread, ["a"]) is not threading.current_thread()


def test_a_thread_is_replaced_after_so_many_characters() -> None:
    threads = FreshThreads(forget_after_characters=4)
    used = [threads.call(Library().thread, [text]) for text in ("aa", "a", "aaa", "a", "aaa", "a")]
    assert used[0] is used[1] is used[2]
    assert used[3] is used[4] is not used[2]
    assert used[5] is not used[4]
    used[0].join()
    used[3].join()


@pytest.mark.parametrize("forget_after_characters", [1, 100])
def test_an_exception_comes_back_and_the_next_call_is_answered(
    forget_after_characters: float,
) -> None:
    threads = FreshThreads(forget_after_characters=forget_after_characters)
    with pytest.raises(ArithmeticError, match="words"):
        threads.call(Library().fail, ["words"])
    assert threads.call(len, ["a", "b"]) == 2


# The library is at work when Ctrl-C comes, and still at work when the interpreter ends.
INTERRUPTED = """
import sys, time
from apr.tokenizer.fresh_threads import FreshThreads

def work(texts):
    print("at work", flush=True)
    time.sleep(1.0)
    print("done")

try:
    FreshThreads(forget_after_characters=float(sys.argv[1])).call(work, ["words"])
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("forget_after_characters", ["1", "inf"])
def test_ctrl_c_is_heard_while_the_library_works(forget_after_characters: str) -> None:
    words = [sys.executable, "-c", INTERRUPTED, forget_after_characters]
    environment = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert rest == "interrupted\ndone\n"
    assert process.returncode == 0
