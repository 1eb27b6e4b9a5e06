"""F09: several tokenizers for one corpus.

A tokenizer is known by its content, not by its size; shards carry that identity; and one
directory cannot describe two tokenizers.
"""

import json
from pathlib import Path

import pytest
from tests.shard_files import encode
from tests.tokenizer_files import EOS, Change, nothing, set_in, swapped, tokenizer, write

from apr.errors import Refusal
from apr.shards.reader import ShardReader
from apr.shards.tracing.explain import explain
from apr.shards.verifying.verify import verify
from apr.tokenizer.tokenizer import Tokenizer


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        (swapped("a", "b"), False),
        (set_in("model", "merges", 0, to="e l"), False),
        (set_in("padding", to=None), True),
    ],
    ids=["two ids swapped", "one merge edited", "twin"],
)
def test_another_tokenizer_of_equal_size_is_told_apart(change: Change, is_same: bool) -> None:
    def with_piece(value: dict) -> None:
        value["model"]["vocab"]["el"] = 259
        value["added_tokens"] = []
        change(value)

    def without_change(value: dict) -> None:
        value["model"]["vocab"]["el"] = 259
        value["added_tokens"] = []

    first, second = tokenizer(without_change, eos=None), tokenizer(with_piece, eos=None)
    assert first.vocab_size == second.vocab_size
    assert (first.fingerprint == second.fingerprint) is is_same


def test_shards_name_the_tokenizer_that_made_them(tmp_path: Path) -> None:
    ours, other = tokenizer(), tokenizer(swapped("a", "b"))
    output, _ = encode(tmp_path, with_tokenizer=ours)
    foreign, _ = encode(tmp_path, with_tokenizer=other, name="foreign")
    assert ShardReader.open(output).manifest.tokenizer_fingerprint == ours.fingerprint
    assert ShardReader.open(foreign).manifest.tokenizer_fingerprint == other.fingerprint
    assert ours.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        (swapped("a", "b"), False),
        (set_in("model", "merges", 0, to="e l"), False),
        (set_in("padding", to=None), True),
    ],
    ids=["two ids swapped", "one merge edited", "twin"],
)
def test_old_shards_are_not_reused_for_an_edited_tokenizer(
    tmp_path: Path, change: Change, is_same: bool
) -> None:
    words = ("he", "hel", "Ġhe", "el")
    first, second = tokenizer(words=words), tokenizer(change, words=words)
    second.save(tmp_path / "tok")
    shards, _ = encode(tmp_path, with_tokenizer=first)
    old = (shards / "manifest.json").read_bytes()
    found = verify(shards, tokenizer_path=tmp_path / "tok")
    assert (found.refusal is None) is is_same
    verdicts = {check.name: check.verdict for check in found.checks}
    assert verdicts["tokenizer"] == ("PASS" if is_same else "FAIL")
    if not is_same:
        with pytest.raises(Refusal) as refused:
            explain(shards, token_index=0, tokenizer_path=tmp_path / "tok")
        assert refused.value.id == "shards.other-tokenizer"
    with pytest.raises(Refusal) as refused:
        encode(tmp_path, with_tokenizer=second)
    assert refused.value.id == "files.exists"
    assert (shards / "manifest.json").read_bytes() == old
    encode(tmp_path, with_tokenizer=second, overwrite=True)
    assert ShardReader.open(shards).manifest.tokenizer_fingerprint == second.fingerprint
    assert ((shards / "manifest.json").read_bytes() == old) is is_same


CONFIGS = {
    "a token only there": {"added_tokens_decoder": {"260": {"content": "<|extra|>"}}},
    "a token with another id": {"added_tokens_decoder": {"258": {"content": EOS}}},
    "an id that is no number": {"added_tokens_decoder": {"last": {"content": EOS}}},
    "another text for an id": {"added_tokens_decoder": {"259": {"content": "<|other|>"}}},
    "no text for an id": {"added_tokens_decoder": {"259": {}}},
    "a list of tokens": {"added_tokens_decoder": [EOS]},
    "an eos_token nobody knows": {"eos_token": "<|unheard|>"},
    "a pad_token nobody knows": {"pad_token": {"content": "[PAD]"}},
    "an additional token nobody knows": {"additional_special_tokens": [EOS, "<|more|>"]},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_disagrees_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(CONFIGS[name]))
    with pytest.raises(Refusal) as refused:
        Tokenizer.load(tmp_path)
    assert refused.value.id == "tokenizer.sibling-disagrees"
    assert refused.value.where == str(tmp_path / "tokenizer_config.json")
    assert Tokenizer.load(tmp_path / "tokenizer.json").vocab_size == 260


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("special_tokens_map.json", '{"eos_token": "<|unheard|>"}'),
        ("added_tokens.json", '{"<|extra|>": 260}'),
        ("added_tokens.json", '{"<|endoftext|>": 0}'),
        ("vocab.json", '{"a": 0}'),
        ("merges.txt", "#version: 0.2\nh e\nĠ he\nhe l\n"),
        ("merges.txt", ""),
    ],
)
def test_another_file_that_disagrees_is_refused(tmp_path: Path, file: str, text: str) -> None:
    write(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(Refusal) as refused:
        Tokenizer.load(tmp_path)
    assert refused.value.id == "tokenizer.sibling-disagrees"
    assert refused.value.where == str(tmp_path / file)


def test_the_harmless_twin_loads(tmp_path: Path) -> None:
    tokenizer(nothing).save(tmp_path / "tok")
    assert Tokenizer.load(tmp_path / "tok").fingerprint == tokenizer().fingerprint
