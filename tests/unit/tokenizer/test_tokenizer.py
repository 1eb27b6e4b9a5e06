"""Encoding, decoding and declaring, on a tokenizer small enough to read."""

import json
import tracemalloc
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from tests.tokenizer_files import (
    EOS,
    changed,
    nothing,
    set_in,
    tokenizer,
    write,
)

from apr.errors import DamagedFile, PathNotFound, Refusal
from apr.tokenizer.tokenizer import Tokenizer

SMALL = tokenizer()
TEXTS = ["hello he", "", "naïve — 世界\n\tx\0", f"{EOS}", "\U0001f600\r\n"]


def test_merges_make_pieces() -> None:
    pieces = [SMALL.vocabulary[id] for id in SMALL.encode("hello he")]
    assert pieces == ["hel", "l", "o", "Ġhe"]


def test_vocabulary_is_by_id_and_holds_the_control_tokens() -> None:
    assert SMALL.vocab_size == len(SMALL.vocabulary) == 256 + 3 + 1
    assert SMALL.vocabulary[-1] == EOS == SMALL.eos_token
    assert SMALL.eos_token_id == 259
    assert SMALL.merges == ["h e", "he l", "Ġ he"]


def test_the_json_is_kept_byte_for_byte() -> None:
    data = changed(nothing)
    assert Tokenizer.from_json_bytes(data, eos_token=None, where="x").json_bytes == data


@pytest.mark.parametrize("text", TEXTS)
def test_decode_undoes_encode(text: str) -> None:
    token_ids = SMALL.encode(text)
    assert token_ids.dtype == np.uint32
    assert SMALL.decode(token_ids) == text


def test_a_batch_equals_its_parts() -> None:
    together = SMALL.encode_batch(TEXTS)
    assert [ids.tolist() for ids in together] == [SMALL.encode(text).tolist() for text in TEXTS]


def test_decode_shows_control_tokens() -> None:
    assert SMALL.decode([259, *SMALL.encode("he"), 259]) == f"{EOS}he{EOS}"


@pytest.mark.parametrize("token_ids", [[260], [0, -1], [1 << 40]])
def test_ids_of_another_tokenizer_are_refused(token_ids: list[int]) -> None:
    with pytest.raises(Refusal) as refused:
        SMALL.decode(token_ids)
    assert refused.value.id == "tokenizer.id-range"


def test_a_lone_surrogate_is_refused() -> None:
    for use in (SMALL.encode, tokenizer(set_in("normalizer", to={"type": "NFC"})).normalize):
        with pytest.raises(Refusal) as refused:
            use("ab\ud800")
        assert refused.value.id == "tokenizer.lone-surrogate"
        assert "character 2" in refused.value.found


def test_text_is_normalized_as_the_tokenizer_says() -> None:
    composing = tokenizer(set_in("normalizer", to={"type": "NFC"}))
    assert composing.normalize("e\u0301") == "\u00e9"
    assert composing.normalize("ascii") == "ascii"
    assert SMALL.normalize("e\u0301") == "e\u0301"
    lower = tokenizer(set_in("normalizer", to={"type": "Lowercase"}))
    assert lower.normalize("ASCII") == "ascii"


def test_truncation_and_padding_are_switched_off() -> None:
    limits = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    pads = {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None}
    pads |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "!"}
    cutting = tokenizer(lambda value: value.update(truncation=limits, padding=pads))
    assert len(cutting.encode("x" * 50)) == 50
    assert len(cutting.encode("x")) == 1


def test_an_undeclared_separator_is_not_guessed() -> None:
    undeclared = tokenizer(eos=None, control=("<|pad|>", EOS))
    assert (undeclared.eos_token, undeclared.eos_token_id) == (None, None)
    assert undeclared.encode("he").size == 1
    with pytest.raises(Refusal) as refused:
        undeclared.require_eos_token_id()
    assert refused.value.id == "tokenizer.eos-undeclared"
    assert f"<|pad|>, {EOS}" in refused.value.found
    assert SMALL.require_eos_token_id() == 259


@pytest.mark.parametrize(
    ("eos", "found"), [("he", "an ordinary piece"), ("</s>", "not one token"), ("", "not one")]
)
def test_a_separator_that_is_no_control_token_is_refused(eos: str, found: str) -> None:
    with pytest.raises(Refusal) as refused:
        tokenizer(eos=eos)
    assert refused.value.id == "tokenizer.eos-unknown"
    assert found in refused.value.found
    assert EOS in refused.value.expected


def test_many_candidates_are_cut_short() -> None:
    with pytest.raises(Refusal) as refused:
        tokenizer(eos="x", control=tuple(f"<{number}>" for number in range(40)))
    assert "and 32 more" in refused.value.expected


def test_load_reads_a_file_or_a_directory(tmp_path: Path) -> None:
    directory = write(tmp_path / "tok")
    for path in (directory, directory / "tokenizer.json"):
        loaded = Tokenizer.load(path, eos_token=EOS)
        assert loaded.fingerprint == SMALL.fingerprint
        assert loaded.eos_token_id == 259
    assert Tokenizer.load(directory).eos_token is None


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PathNotFound):
        Tokenizer.load(tmp_path / "nothing")
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(PathNotFound) as refused:
        Tokenizer.load(tmp_path)
    assert refused.value.id == "tokenizer.json-missing"
    assert "vocab.json" in refused.value.found


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with path.open("wb") as sparse:
        sparse.truncate(1 << 40)
    tracemalloc.start()
    with pytest.raises(DamagedFile) as refused:
        Tokenizer.load(path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.value.id == "tokenizer.damaged"
    assert peak_bytes < 200 << 20


@pytest.mark.parametrize(
    ("start", "fix"),
    [
        (b"APR\0\x02\x00", "apr export {path} --format hf -o DIR"),
        (b"GGUF\x03\x00", "apr import {path} -o model.apr; apr export model.apr --format hf"),
    ],
)
def test_a_model_file_says_where_its_tokenizer_is_to_be_had(
    tmp_path: Path, start: bytes, fix: str
) -> None:
    path = tmp_path / "model"
    path.write_bytes(start + bytes(range(256)))
    with pytest.raises(DamagedFile) as refused:
        Tokenizer.load(path)
    assert refused.value.id == "tokenizer.damaged"
    assert fix.format(path=path) in refused.value.fix
    # The twin: other bytes are no model, and are said to be no JSON.
    path.write_bytes(b"XX" + start)
    with pytest.raises(DamagedFile) as refused:
        Tokenizer.load(path)
    assert "apr export" not in refused.value.fix


def test_json_without_a_model_type_is_bpe_when_it_has_merges() -> None:
    value = json.loads(changed(nothing))
    del value["model"]["type"]
    data = json.dumps(value).encode()
    assert Tokenizer.from_json_bytes(data, eos_token=EOS, where="x").encode("he").size == 1


def test_ids_that_no_text_has_are_refused_whichever_encoder_made_them() -> None:
    SMALL.require_no_control_id(np.array([], np.uint32))
    SMALL.require_no_control_id(np.array([0, 258], np.uint32))
    for ids, id, found in (
        ([5, 259, 6], "tokenizer.control-id", "'<|endoftext|>' (id 259) out of text"),
        ([5, 260], "tokenizer.id-range", "id 260"),
    ):
        with pytest.raises(Refusal) as caught:
            SMALL.require_no_control_id(np.array(ids, np.uint32))
        assert (caught.value.id, caught.value.found[: len(found)]) == (id, found)


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD", None])
def test_normalized_bytes_are_those_of_the_normalized_text(form: str | None) -> None:
    normalizer = form and {"type": form}
    used = tokenizer(set_in("normalizer", to=normalizer))
    latin = "".join(map(chr, range(0x300)))
    for text in ("", "plain", latin, "e\u0301", "\u212b", "\u2126x", "\ufb01", "\u1100\u1161"):
        expected = unicodedata.normalize(form, text) if form else text
        assert used.normalized_bytes(text, text.encode()).decode() == expected
        assert used.normalize(text) == expected


def test_a_text_that_cannot_change_is_not_looked_at_twice() -> None:
    used = tokenizer(set_in("normalizer", to={"type": "NFC"}))
    for text, is_same in (("na\u00efve \u02ff", True), ("e\u0301", False)):
        data = text.encode()
        assert (used.normalized_bytes(text, data) is data) == is_same


def test_every_character_below_the_first_mark_is_composed() -> None:
    """In any order: what the normalizer is not asked about, it would not change."""
    composing = tokenizer(set_in("normalizer", to={"type": "NFC"}))
    below = [chr(code_point) for code_point in range(0x300)]
    pairs = "".join(left + right for left in below for right in below)
    assert composing.normalize(pairs) == pairs
