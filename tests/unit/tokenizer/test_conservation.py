"""Bytes counted from ids: exact where they can be counted, None where not."""

import numpy as np
import pytest
from tests.tokenizer_files import (
    BYTE_LEVEL,
    Change,
    nothing,
    set_in,
    tokenizer,
)

from apr.tokenizer.conservation import bytes_per_id
from apr.tokenizer.tokenizer import Tokenizer

TEXT = "hello naïve 世界 \U0001f600\n"


def split(behavior: str) -> Change:
    part = {"type": "Split", "pattern": {"String": " "}, "behavior": behavior, "invert": False}
    sequence = {"type": "Sequence", "pretokenizers": [part, BYTE_LEVEL]}
    return set_in("pre_tokenizer", to=sequence)


def spelled_bytes(used: Tokenizer) -> int:
    sizes = bytes_per_id(used.definition)
    assert sizes is not None
    return int(sizes[used.encode(TEXT)].sum())


@pytest.mark.parametrize("change", [nothing, split("Isolated")])
def test_a_byte_level_tokenizer_spells_every_byte(change: Change) -> None:
    assert spelled_bytes(tokenizer(change)) == len(TEXT.encode())


def test_a_splitter_that_removes_text_shows() -> None:
    assert spelled_bytes(tokenizer(split("Removed"))) == len(TEXT.encode()) - TEXT.count(" ")


def test_control_tokens_spell_nothing() -> None:
    sizes = bytes_per_id(tokenizer().definition)
    assert sizes is not None
    assert sizes[-1] == 0
    assert np.all(sizes[:-1] > 0)


@pytest.mark.parametrize(
    "change",
    [
        set_in("pre_tokenizer", "add_prefix_space", to=True),
        set_in("pre_tokenizer", to=None),
        set_in("model", "end_of_word_suffix", to="</w>"),
    ],
)
def test_what_cannot_be_counted_is_not_guessed(change: Change) -> None:
    assert bytes_per_id(tokenizer(change).definition) is None


def test_a_long_piece_has_room() -> None:
    """The table is as small as its largest entry allows, and no smaller."""
    words = tuple("x" * length for length in range(2, 301))
    for used, bits, longest in ((tokenizer(), 8, 3), (tokenizer(words=words), 16, 300)):
        sizes = bytes_per_id(used.definition)
        assert sizes is not None
        assert (sizes.dtype, sizes.max()) == (np.dtype(f"uint{bits}"), longest)
