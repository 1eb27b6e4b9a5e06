"""Which texts count as the same."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apr.corpus.reading.documents import document_hash
from apr.corpus.similarity.normal_form import normal_form, normal_hash

TEXT = "def f(x):\n    return 'caf\u00e9'\n"


@pytest.mark.parametrize(
    "spelling",
    [
        TEXT,
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("\n", "\r"),
        TEXT.replace("\n", " \t\n"),
        TEXT.rstrip(),
        TEXT + "\n \n\n",
        "\ufeff" + TEXT,
        TEXT.replace("\u00e9", "e\u0301"),
    ],
)
def test_spellings_of_one_text(spelling: str) -> None:
    assert normal_form(spelling) == TEXT.rstrip()
    assert normal_hash(spelling) == normal_hash(TEXT)


@pytest.mark.parametrize(
    "other",
    [
        TEXT.replace("    ", "  "),
        TEXT.replace("x", "X"),
        TEXT.replace(":\n", ":\n\n"),
        " " + TEXT,
        TEXT.replace("\u00e9", "e"),
        TEXT.replace("\u00e9", "\ufb01"),
    ],
)
def test_other_texts(other: str) -> None:
    assert normal_hash(other) != normal_hash(TEXT)


def test_a_normal_hash_is_no_document_hash() -> None:
    assert normal_hash("x") != document_hash("x")
    assert len(normal_hash("x")) == 16


@pytest.mark.parametrize(
    "hostile",
    [
        "a" + "\u0301\u0316" * 500_000,
        " \t" * 2_000_000 + "x",
        (" " * 80 + "\n") * 20_000,
        "\r" * 2_000_000,
        "e\u0301" * 500_000,
    ],
)
def test_time_is_linear_in_the_text(hostile: str) -> None:
    """A million marks on one letter take hours to compose; the limit is far above the need."""
    began_s = time.process_time()
    normal_form(hostile)
    assert time.process_time() - began_s < 10


def test_marks_that_are_not_composed_still_compare() -> None:
    many = "a" + "\u0301\u0316" * 40
    assert normal_hash(many + "\r\n") == normal_hash(many)


@given(st.text(st.sampled_from("ab\n \t\r\x0b\x0c\x1c\x1f\x00\x7f\xa0\u2028"), max_size=12))
def test_the_shortcut_for_bare_line_ends_gives_what_the_rule_says(text: str) -> None:
    unified = text.replace("\r\n", "\n").replace("\r", "\n")
    stripped = "\n".join(line.rstrip() for line in unified.split("\n")).rstrip()
    assert normal_form(text) == stripped
