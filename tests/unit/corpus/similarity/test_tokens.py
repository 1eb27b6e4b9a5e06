"""Token hashes against an independent tokenizer: equal exactly where the tokens are."""

import re
import time

import numpy as np
import pytest
from tests.corpus_files import program

from apr.corpus.similarity.shingles import SHINGLE_TOKENS, jaccard, shingle
from apr.corpus.similarity.tokens import tokenize

TOKEN = re.compile(rb"[A-Za-z0-9_\x80-\xff]+|[^A-Za-z0-9_\x80-\xff\s]+")
WORD = re.compile(rb"[A-Za-z0-9_\x80-\xff]+")
TEXTS = [
    program(1),
    "x",
    " ",
    "naïve = 'ü' + b\n",
    "a+b  -->\tC_3\r\n\r\nif(x):y",
    "\x01\x02 \x7f",
    "word " * 300,
    program(2, lines=400) * 6,
]


def spelled(text: str, pattern: re.Pattern[bytes] = TOKEN) -> list[bytes]:
    return [token.lower() for token in pattern.findall(text.encode())]


def split_by_text(values: np.ndarray, ends: np.ndarray) -> list[list[int]]:
    return [part.tolist() for part in np.split(values, ends[:-1])]


@pytest.mark.parametrize(("words_only", "pattern"), [(False, TOKEN), (True, WORD)])
def test_hashes_stand_for_tokens(words_only: bool, pattern: re.Pattern[bytes]) -> None:
    tokens = tokenize(TEXTS, words_only=words_only)
    meaning: dict[int, bytes] = {}
    for text, hashes in zip(TEXTS, split_by_text(tokens.hashes, tokens.ends), strict=True):
        expected = spelled(text, pattern)
        assert len(hashes) == len(expected)
        for found, token in zip(hashes, expected, strict=True):
            assert meaning.setdefault(found, token) == token
    assert len(set(meaning.values())) == len(meaning) > 100
    every = [token for text in TEXTS for token in spelled(text, pattern)]
    assert tokens.first_bytes.tolist() == [token[0] for token in every]


def test_neighbours_change_nothing() -> None:
    together = tokenize(TEXTS)
    for text, hashes in zip(TEXTS, split_by_text(together.hashes, together.ends), strict=True):
        assert tokenize([text]).hashes.tolist() == hashes


def test_no_texts_have_no_tokens() -> None:
    assert tokenize([]).ends.tolist() == []
    assert tokenize(["", "a", "", "\n"]).ends.tolist() == [0, 1, 1, 1]


def test_case_and_white_space_do_not_matter() -> None:
    assert tokenize(["If  X:\n\ty"]).hashes.tolist() == tokenize(["if x : Y"]).hashes.tolist()


def test_a_line_longer_than_a_piece_is_read_in_bounded_time() -> None:
    began_s = time.process_time()
    tokens = tokenize(["x" * 4_000_000, "a, " * 1_000_000])
    assert len(tokens.hashes) > 2_000_000
    assert time.process_time() - began_s < 10


def windows(text: str) -> set[tuple[bytes, ...]]:
    tokens = spelled(text)
    last = max(len(tokens) - SHINGLE_TOKENS, 0)
    return {tuple(tokens[at : at + SHINGLE_TOKENS]) for at in range(last + 1)} if tokens else set()


def test_shingles_are_runs_of_five_tokens_or_a_whole_text() -> None:
    texts = [*TEXTS, "a b", "a b c", "a b c d e", "", "a b c d e f"]
    shingles = shingle(texts)
    meaning: dict[int, tuple[bytes, ...]] = {}
    for at, text in enumerate(texts):
        found, expected = shingles.set_of(at), windows(text)
        assert len(found) == len(expected)
        assert found.tolist() == sorted(found.tolist())
        alone = shingle([text]).set_of(0)
        assert alone.tolist() == found.tolist()
    for one in expected_pairs():
        hashes = shingle([" ".join(word.decode() for word in one)]).set_of(0).tolist()
        assert meaning.setdefault(hashes[0], one) == one


def expected_pairs() -> list[tuple[bytes, ...]]:
    return sorted(windows(program(3)) | windows(program(4)))


@pytest.mark.parametrize(("one", "other"), [(1, 1), (1, 2), (5, 6)])
def test_jaccard_is_shared_over_all(one: int, other: int) -> None:
    first, second = program(one), program(other) + program(one, lines=20)
    expected = len(windows(first) & windows(second)) / len(windows(first) | windows(second))
    sets = shingle([first, second])
    assert jaccard(sets.set_of(0), sets.set_of(1)) == pytest.approx(expected, abs=1e-12)
    assert expected > 0.2


def test_jaccard_of_nothing_is_nothing() -> None:
    empty = np.empty(0, np.uint64)
    assert jaccard(empty, empty) == 0.0
    assert jaccard(empty, shingle(["a"]).set_of(0)) == 0.0
