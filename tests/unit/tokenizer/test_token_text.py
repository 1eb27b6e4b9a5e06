"""The bytes of single tokens: they join to the text, whatever characters they split."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tokenizer_files import ALPHABET, EOS, set_in, tokenizer
from tokenizers import pre_tokenizers

from apr.errors import Refusal
from apr.tokenizer.token_text import TokenText, piece_bytes
from apr.tokenizer.tokenizer import Tokenizer

BYTE_LEVEL = tokenizer()
TEXT = TokenText(BYTE_LEVEL)


@given(text=st.text())
def test_the_bytes_of_tokens_join_to_the_text(text: str) -> None:
    ids = BYTE_LEVEL.encode(text)
    assert TEXT.text(ids) == text.encode()
    assert b"".join(TEXT.token(int(id)) for id in ids) == text.encode()
    assert TEXT.count_newlines(ids) == text.count("\n")


def test_every_byte_has_its_piece() -> None:
    pieces = piece_bytes(BYTE_LEVEL.definition)
    assert pieces is not None
    assert sorted(pieces[:256]) == [bytes([byte]) for byte in range(256)]
    assert set(ALPHABET) == set(pre_tokenizers.ByteLevel.alphabet())
    assert pieces[256] == b"he"
    assert pieces[-1] == EOS.encode()


def test_a_character_is_split_over_its_bytes() -> None:
    ids = BYTE_LEVEL.encode("ï")
    assert [TEXT.token(int(id)) for id in ids] == [b"\xc3", b"\xaf"]
    assert TEXT.is_exact


def test_a_tokenizer_that_is_not_spelled_by_byte_is_asked_for_its_text() -> None:
    def words(value: dict[str, Any]) -> None:
        value["pre_tokenizer"] = {
            "type": "Metaspace",
            "replacement": "_",
            "prepend_scheme": "never",
        }
        value["decoder"] = value["pre_tokenizer"]

    other = tokenizer(words)
    assert piece_bytes(other.definition) is None
    texts = TokenText(other)
    assert not texts.is_exact
    ids = other.encode("he he")
    assert texts.text(ids) == b"he he"
    assert texts.token(int(ids[0])) == b"he"


def test_a_prefix_space_makes_the_bytes_inexact() -> None:
    other = tokenizer(set_in("pre_tokenizer", "add_prefix_space", to=True))
    assert piece_bytes(other.definition) is None


@pytest.mark.parametrize("name", ["gpt2", "qwen2.5"])
def test_real_tokenizers_spell_by_byte(shared_data: Path, name: str) -> None:
    real = Tokenizer.load(shared_data / "tokenizers" / name)
    texts = TokenText(real)
    sample = "def f(x):\n\treturn '日本語' + \"naïve 🎉\"\r\n\n\n"
    assert texts.is_exact
    assert texts.text(real.encode(sample)) == sample.encode()


def test_an_id_beyond_the_vocabulary_is_refused() -> None:
    for spell in (TEXT.text, TEXT.count_newlines):
        with pytest.raises(Refusal) as refused:
            spell(np.array([0, 260], np.uint32))
        assert refused.value.id == "tokenizer.id-range"
