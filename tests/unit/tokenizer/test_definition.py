"""What a sound tokenizer.json says, in one spelling."""

import pytest
from tests.tokenizer_files import (
    EOS,
    changed,
    nothing,
    set_in,
)

from apr.tokenizer.definition import read_definition

SMALL = read_definition(changed(nothing), where="x")


def test_merges_have_one_spelling_however_they_are_written() -> None:
    pairs = [["h", "e"], ["he", "l"], ["Ġ", "he"]]
    as_pairs = read_definition(changed(set_in("model", "merges", to=pairs)), where="x")
    assert as_pairs.merges == SMALL.merges == ["h e", "he l", "Ġ he"]


@pytest.mark.parametrize("merges", [["h e", "he l"], [["h", "e"]], ["h e", ["he", "l"]], []])
def test_what_was_checked_before_is_read_the_same_way(merges: list[object]) -> None:
    data = changed(set_in("model", "merges", to=merges))
    assert read_definition(data, where="x", is_checked=True) == read_definition(data, where="x")


def test_added_tokens_continue_the_vocabulary() -> None:
    assert SMALL.ids[EOS] == 259
    assert SMALL.vocabulary[:256] == sorted(SMALL.vocab, key=SMALL.vocab.__getitem__)[:256]
    assert EOS not in SMALL.vocab


def test_a_control_token_may_stand_in_the_vocabulary_too() -> None:
    """As `<|endoftext|>` does in GPT-2's file."""
    twice = read_definition(changed(set_in("model", "vocab", EOS, to=259)), where="x")
    assert twice.vocabulary == SMALL.vocabulary


def test_a_piece_joined_behind_a_prefix() -> None:
    def with_prefix(value: dict) -> None:
        value["model"]["continuing_subword_prefix"] = "##"
        value["model"]["vocab"] = {"a": 0, "##b": 1, "ab": 2}
        value["model"]["merges"] = ["a ##b"]
        value["added_tokens"] = []

    prefixed = read_definition(changed(with_prefix), where="x")
    assert prefixed.merges == ["a ##b"]
    assert prefixed.has_affixes
    assert not SMALL.has_affixes


@pytest.mark.parametrize("growth", [1, 64])
def test_a_normalizer_may_replace_and_prepend(growth: int) -> None:
    parts = [
        {"type": "Prepend", "prepend": "_"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "_" * growth},
    ]
    normalizer = {"type": "Sequence", "normalizers": parts}
    assert read_definition(changed(set_in("normalizer", to=normalizer)), where="x").normalizer
