"""What is called inert is so in Unicode's own tables and for the library that normalizes."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers

from apr.tokenizer import nfc
from apr.tokenizer.nfc import is_surely_nfc

INERT = [chr(code_point) for code_point in np.flatnonzero(nfc._IS_INERT)]
NFC = normalizers.NFC()


def test_no_inert_character_combines_or_is_composed_away() -> None:
    second = set()
    for code_point in range(0x110000):
        parts = unicodedata.decomposition(chr(code_point)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            second.add(chr(int(parts[1], 16)))
    assert len(INERT) > 30_000
    assert "\u0301" in second
    assert [c for c in INERT if unicodedata.category(c) == "Cn"] == []
    assert [c for c in INERT if unicodedata.combining(c)] == []
    assert [c for c in INERT if unicodedata.normalize("NFC", c) != c] == []
    assert [c for c in INERT if c in second] == []


@given(st.lists(st.sampled_from(INERT), max_size=40))
def test_the_library_leaves_inert_text_as_it_is(characters: list[str]) -> None:
    text = "".join(characters)
    assert is_surely_nfc(text)
    assert NFC.normalize_str(text) == text


@pytest.mark.parametrize(
    "text", ["e\u0301", "\u212b", "\u1100\u1161", "\uac00\u11a8", "\u0344", "x\U0001d15e", "\uf900"]
)
def test_text_that_composing_changes_is_never_called_inert(text: str) -> None:
    assert NFC.normalize_str(text) != text
    assert not is_surely_nfc(text)
    assert not is_surely_nfc(f"ordinary {text} text")
