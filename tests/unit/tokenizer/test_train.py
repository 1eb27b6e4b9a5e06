"""Learning a byte-level BPE: the same texts, the same bytes; any text, spelled."""

import hashlib
import json
import random
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.tokenizer_files import EOS

from apr.errors import Refusal, UsageRefusal
from apr.progress import Progress
from apr.tokenizer.train import train_bpe

LETTERS = str.maketrans("0123456789", "ghijklmnop")
TEXTS = ["def f(x):\n    return x\n" * 3, "class A:\n    pass\n\n\n", "été 世界 123456\n" * 2]

IN_ANOTHER_PROCESS = """
import sys
from apr.tokenizer.train import train_bpe
from tests.unit.tokenizer.test_train import varied_texts
sys.stdout.buffer.write(train_bpe(varied_texts(), vocab_size=1000).json_bytes)
"""


def varied_texts() -> list[str]:
    """Thousands of words, many of them equally frequent."""
    names = [hashlib.md5(str(number).encode()).hexdigest() for number in range(300)]
    return [f"def {name.translate(LETTERS)}(x):\n    return {name}\n" * 2 for name in names]


def test_every_byte_has_a_piece_and_the_separator_is_last() -> None:
    learned = train_bpe(TEXTS, vocab_size=270)
    assert learned.vocab_size == 270
    assert (learned.eos_token, learned.eos_token_id) == (EOS, 269)
    text = "".join(map(chr, range(0x250))) + "\U0001f600 \t\r\n"
    assert learned.decode(learned.encode(text)) == learned.normalize(text)


def test_merges_follow_what_is_frequent() -> None:
    learned = train_bpe(TEXTS, vocab_size=300)
    assert "Ġreturn" in learned.vocabulary
    assert len(learned.encode("    return x\n")) < len("    return x\n") / 2


def test_digits_stay_apart() -> None:
    learned = train_bpe(["12345 12345\n" * 9], vocab_size=300)
    assert [learned.decode([id]) for id in learned.encode("12345")] == list("12345")


def test_a_small_corpus_gives_a_small_vocabulary() -> None:
    learned = train_bpe(["ab ab"], vocab_size=5000)
    assert learned.vocab_size == 256 + len(learned.merges) + 1 < 270
    assert learned.training is not None
    assert learned.training.vocab_size == 5000


def test_min_frequency_limits_merges() -> None:
    rare = train_bpe(["ab ab cd"], vocab_size=5000, min_frequency=2)
    every = train_bpe(["ab ab cd"], vocab_size=5000, min_frequency=1)
    assert len(every.merges) > len(rare.merges) > 0


def test_normalization_is_the_one_asked_for() -> None:
    for normalization, normalizer in (("nfc", {"type": "NFC"}), ("none", None)):
        learned = train_bpe(TEXTS, vocab_size=260, normalization=normalization)
        assert json.loads(learned.json_bytes)["normalizer"] == normalizer


@pytest.mark.parametrize("seed", ["0", "1"])
def test_the_bytes_do_not_depend_on_the_process(seed: str) -> None:
    """Hash seeds, threads, locale and time zone are another machine's."""
    environment = {
        "PYTHONPATH": ":".join([*sys.path, str(Path(__file__).parents[3])]),
        "PYTHONHASHSEED": seed,
        "RAYON_NUM_THREADS": str(1 + int(seed)),
        "LC_ALL": "C",
        "TZ": "Asia/Tokyo",
    }
    run = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS], env=environment, capture_output=True, check=True
    )
    learned = train_bpe(varied_texts(), vocab_size=1000)
    assert learned.vocab_size == 1000
    assert run.stdout == learned.json_bytes


def test_progress_counts_bytes() -> None:
    reports: list[Progress] = []
    train_bpe(TEXTS, vocab_size=260, expected_bytes=20, progress=reports.append)
    assert reports[0].total == (20 if reports[0].done <= 20 else None)
    assert reports[len(TEXTS) - 1].done == sum(len(text.encode()) for text in TEXTS)
    assert reports[-1].activity == "learning merges"


@pytest.mark.parametrize("expected_bytes", [1, 20, 10_000])
def test_a_guess_of_the_size_is_no_total_once_it_is_passed(expected_bytes: int) -> None:
    """With the total raised to what was read, every text was the last one, and left a line."""
    reports: list[Progress] = []
    train_bpe(TEXTS, vocab_size=260, expected_bytes=expected_bytes, progress=reports.append)
    reading = reports[: len(TEXTS)]
    assert sum(report.done == report.total for report in reading) <= 1
    for report in reading:
        assert report.total == (expected_bytes if report.done <= expected_bytes else None)


def test_a_long_word_does_not_stall_the_trainer() -> None:
    """Uncut, the trainer takes minutes for a megabyte of letters."""
    letters = "".join(random.Random(0).choices(string.ascii_letters, k=150_000))
    started_s = time.monotonic()
    learned = train_bpe([letters, " " * 150_000], vocab_size=300)
    assert time.monotonic() - started_s < 4
    assert learned.training is not None
    assert learned.training.text_bytes == 300_000


@pytest.mark.parametrize("vocab_size", [-1, 0, 256, 10**30])
def test_a_vocabulary_without_the_bytes_or_without_end_is_refused(vocab_size: int) -> None:
    with pytest.raises(UsageRefusal) as refused:
        train_bpe(TEXTS, vocab_size=vocab_size)
    assert refused.value.id == "tokenizer.vocab-size"
    assert train_bpe(TEXTS, vocab_size=257).vocab_size == 257


@pytest.mark.parametrize("min_frequency", [0, -1, 10**30])
def test_a_frequency_that_makes_no_sense_is_refused(min_frequency: int) -> None:
    with pytest.raises(UsageRefusal) as refused:
        train_bpe(TEXTS, vocab_size=300, min_frequency=min_frequency)
    assert refused.value.id == "tokenizer.min-frequency"


@pytest.mark.parametrize("eos_token", ["", " ", "a", "EOS", "é", "\ud800", "<"])
def test_a_separator_that_text_can_spell_is_refused(eos_token: str) -> None:
    with pytest.raises(UsageRefusal) as refused:
        train_bpe(TEXTS, vocab_size=300, eos_token=eos_token)
    assert refused.value.id == "tokenizer.eos-ordinary"


@pytest.mark.parametrize("eos_token", ["</s>", "<|end|>", "<eos>"])
def test_another_separator_is_never_spelled_by_text(eos_token: str) -> None:
    learned = train_bpe([eos_token * 50], vocab_size=400, eos_token=eos_token, min_frequency=1)
    assert learned.eos_token_id == learned.vocab_size - 1
    assert learned.eos_token_id not in learned.encode(eos_token * 3)


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_no_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(Refusal) as refused:
        train_bpe(texts, vocab_size=300)
    assert refused.value.id == "tokenizer.no-text"


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        train_bpe(["fine", "\ud800"], vocab_size=300)
    assert (refused.value.id, refused.value.where) == ("tokenizer.lone-surrogate", "text 1")


def test_a_failing_corpus_fails_the_training() -> None:
    def texts() -> Iterator[str]:
        yield "fine"
        raise Refusal("planted.fault", "x", found=1, expected=2, fix="none")

    with pytest.raises(Refusal) as refused:
        train_bpe(texts(), vocab_size=300)
    assert refused.value.id == "planted.fault"
