"""Malformed tokenizer files: each refused by name, in bounded time, without a traceback."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.tokenizer_files import (
    EOS,
    Change,
    changed,
    control_token,
    nothing,
    set_in,
    swapped,
    tokenizer,
    without,
    write,
)

from apr.errors import DamagedFile, Refusal
from apr.tokenizer.tokenizer import Tokenizer

SOUND = changed(nothing)


def nested(depth: int) -> dict[str, Any]:
    component: dict[str, Any] = {"type": "NFC"}
    for _ in range(depth):
        component = {"type": "Sequence", "normalizers": [component]}
    return component


def load(data: bytes) -> Tokenizer:
    return Tokenizer.from_json_bytes(data, eos_token=None, where="x")


NOT_JSON = {
    "nothing": b"",
    "text": b"tokenizer",
    "not UTF-8": SOUND.replace(b'"h"', b'"\xff"'),
    "a list": b"[]",
    "a repeated key": SOUND.replace(b'"vocab"', b'"vocab": {}, "vocab"'),
    "NaN": SOUND.replace(b'"padding": null', b'"padding": NaN'),
    "a lone surrogate": SOUND.replace(b'"version": "1.0"', b'"version": "\\ud800"'),
    "nested without end": b'{"model":' * 100_000,
    "zeros": bytes(4096),
}
DAMAGED: dict[str, Change] = {
    "no model": without("model"),
    "a model that is a list": set_in("model", to=[]),
    "no vocabulary": without("model", "vocab"),
    "an empty vocabulary": set_in("model", "vocab", to={}),
    "a vocabulary that is a list": set_in("model", "vocab", to=["a"]),
    "an id that is a text": set_in("model", "vocab", "a", to="64"),
    "an id that is true": set_in("model", "vocab", "a", to=True),
    "an id that is a fraction": set_in("model", "vocab", "a", to=64.0),
    "a negative id": set_in("model", "vocab", "a", to=-1),
    "two pieces with one id": set_in("model", "vocab", "a", to=0),
    "merges that are no list": set_in("model", "merges", to={}),
    "a merge of one piece": set_in("model", "merges", 0, to="he"),
    "a merge of three pieces": set_in("model", "merges", 0, to="h e l"),
    "a merge that is a number": set_in("model", "merges", 0, to=7),
    "a merge of an unknown piece": set_in("model", "merges", 0, to="h zz"),
    "a merge into an unknown piece": set_in("model", "merges", 0, to="z z"),
    "a prefix that is a number": set_in("model", "continuing_subword_prefix", to=5),
    "an unknown token that is an object": set_in("model", "unk_token", to={}),
    "added tokens that are an object": set_in("added_tokens", to={"a": 1}),
    "an added token that is a text": set_in("added_tokens", 0, to="<|endoftext|>"),
    "an added token without id": without("added_tokens", 0, "id"),
    "an added token without text": set_in("added_tokens", 0, "content", to=None),
    "an added token with another piece's id": set_in("added_tokens", 0, "id", to=3),
    "an added token that contradicts": set_in("added_tokens", 0, "content", to="a"),
    "a pre-tokenizer that is a text": set_in("pre_tokenizer", to="ByteLevel"),
    "a normalizer that fills the memory": set_in(
        "normalizer", to={"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 65}
    ),
    "normalizers that double, again and again": set_in(
        "normalizer",
        to={
            "type": "Sequence",
            "normalizers": [
                {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"} for _ in range(40)
            ],
        },
    ),
    "a decoder that fills the memory": set_in(
        "decoder", to={"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 999}
    ),
    "a normalizer nested too deeply": set_in("normalizer", to=nested(300)),
}
LIBRARY_SAYS_NO: dict[str, Change] = {
    "an unknown pre-tokenizer": set_in("pre_tokenizer", "type", to="Wonder"),
    "an unclosed regular expression": set_in(
        "pre_tokenizer",
        to={"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False},
    ),
    "an unknown token outside the vocabulary": set_in("added_tokens", 0, "special", to=7),
}


@pytest.mark.parametrize("name", NOT_JSON)
def test_what_is_no_json_is_refused(name: str) -> None:
    with pytest.raises(DamagedFile) as refused:
        load(NOT_JSON[name])
    assert refused.value.id == "tokenizer.damaged"


def test_the_sound_file_passes() -> None:
    assert load(SOUND).vocab_size == 260


@pytest.mark.parametrize("cut", [1, 2, 500, len(SOUND) // 2, len(SOUND) - 2])
def test_a_truncated_file_is_refused(cut: int) -> None:
    with pytest.raises(DamagedFile) as refused:
        load(SOUND[:-cut])
    assert refused.value.id == "tokenizer.damaged"


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_refused(name: str) -> None:
    with pytest.raises(DamagedFile) as refused:
        load(changed(DAMAGED[name]))
    assert refused.value.id == "tokenizer.damaged"


@pytest.mark.parametrize("name", LIBRARY_SAYS_NO)
def test_what_the_library_refuses_is_a_refusal(name: str) -> None:
    with pytest.raises(DamagedFile) as refused:
        load(changed(LIBRARY_SAYS_NO[name]))
    assert refused.value.id == "tokenizer.encoder-failed"


def test_a_panic_of_the_library_is_a_refusal(capfd: pytest.CaptureFixture[str]) -> None:
    """A regular expression that explodes: the Rust library ends in a panic, no Exception."""
    explosive = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"}
    exploding = tokenizer(set_in("pre_tokenizer", to=explosive | {"invert": False}))
    assert exploding.encode("aaa!").size
    with pytest.raises(DamagedFile) as refused:
        exploding.encode("a" * 40 + "!")
    assert refused.value.id == "tokenizer.encoder-failed"
    assert "panicked" in capfd.readouterr().err


def test_added_tokens_that_the_library_would_renumber_are_refused() -> None:
    def reversed_order(value: dict[str, Any]) -> None:
        value["added_tokens"] = [control_token("<b>", 260), control_token("<a>", 259)]

    with pytest.raises(DamagedFile) as refused:
        load(changed(reversed_order))
    assert "'<a>' has id 260 once loaded" in refused.value.found


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ({"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 0}, "Unigram"),
        ({"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "a"}, "WordPiece"),
        ({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}, "WordLevel"),
        ({"vocab": {"a": 0}}, "a model without type and merges"),
        ({"type": ["BPE"]}, "['BPE']"),
    ],
)
def test_other_models_than_bpe_are_refused_by_name(model: dict[str, Any], found: str) -> None:
    with pytest.raises(Refusal) as refused:
        load(changed(set_in("model", to=model)))
    assert refused.value.id == "tokenizer.not-bpe"
    assert refused.value.upstream_id == "FALSIFY-TOK-IMPORT-HF-005"
    assert refused.value.exit_code == 5
    assert refused.value.found == found


@pytest.mark.parametrize(("dropout", "is_refused"), [(0.1, True), (1, True), (0.0, False)])
def test_dropout_is_refused(dropout: float, is_refused: bool) -> None:
    data = changed(set_in("model", "dropout", to=dropout))
    if not is_refused:
        assert load(data).vocab_size == 260
        return
    with pytest.raises(Refusal) as refused:
        load(data)
    assert refused.value.id == "tokenizer.dropout"


def test_a_merge_with_a_space_has_two_readings() -> None:
    def with_space(value: dict[str, Any]) -> None:
        value["model"]["vocab"] |= {" ": 259, "h ": 260}
        value["model"]["merges"] = [["h", " "]]
        value["added_tokens"] = []

    with pytest.raises(Refusal) as refused:
        load(changed(with_space))
    assert refused.value.id == "tokenizer.merge-has-space"


def test_swapped_ids_are_another_tokenizer_not_a_damaged_one() -> None:
    assert load(changed(swapped("a", "b"))).fingerprint != load(SOUND).fingerprint


@pytest.mark.parametrize(
    "name", ["manifest.json", "tokenizer_config.json", "vocab.json", "added_tokens.json"]
)
@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"a": 1, "a": 2}'])
def test_a_damaged_sibling_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (write(tmp_path) / name).write_bytes(data)
    with pytest.raises(DamagedFile) as refused:
        Tokenizer.load(tmp_path)
    assert refused.value.id == "tokenizer.sibling-damaged"
    assert refused.value.where == str(tmp_path / name)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "merges.txt"])
def test_a_pipe_is_not_opened(tmp_path: Path, name: str) -> None:
    """Opening it would wait for ever."""
    write(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(DamagedFile):
        Tokenizer.load(tmp_path)


def test_a_directory_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(DamagedFile) as refused:
        Tokenizer.load(tmp_path)
    assert refused.value.id == "tokenizer.damaged"


def test_a_container_cannot_smuggle_in_another_separator() -> None:
    with pytest.raises(Refusal) as refused:
        Tokenizer.from_json_bytes(SOUND, eos_token="he", where="model.apr")
    assert (refused.value.id, refused.value.where) == ("tokenizer.eos-unknown", "model.apr")
    assert json.loads(SOUND)["added_tokens"][0]["content"] == EOS
