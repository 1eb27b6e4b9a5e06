"""Tokenizer directories: ours survive a round trip, and their files agree."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.tokenizer_files import EOS, set_in, tokenizer, write

from apr.errors import DamagedFile, Refusal
from apr.tokenizer.tokenizer import Tokenizer
from apr.tokenizer.train import train_bpe

FILES = ["manifest.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    tokenizer().save(tmp_path / "tok")
    return tmp_path / "tok"


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_what_is_saved_is_what_is_loaded(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == FILES
    small, loaded = tokenizer(), Tokenizer.load(saved)
    assert loaded.json_bytes == small.json_bytes
    assert loaded.fingerprint == small.fingerprint
    assert (loaded.eos_token, loaded.eos_token_id) == (EOS, 259)
    assert loaded.training is None


def test_saving_twice_gives_the_same_bytes(saved: Path) -> None:
    again = saved.with_name("again")
    Tokenizer.load(saved).save(again)
    for name in FILES:
        assert (saved / name).read_bytes() == (again / name).read_bytes()


def test_training_is_remembered(tmp_path: Path) -> None:
    train_bpe(["abc abc"], vocab_size=300).save(tmp_path / "tok")
    training = Tokenizer.load(tmp_path / "tok").training
    assert training is not None
    assert (training.vocab_size, training.num_documents, training.text_bytes) == (300, 1, 7)


def test_vocab_and_merges_are_what_other_tools_expect(saved: Path) -> None:
    vocab = json.loads((saved / "vocab.json").read_text())
    assert len(vocab) == 260
    assert vocab[EOS] == 259
    assert (saved / "merges.txt").read_text() == "#version: 0.2\nh e\nhe l\nĠ he\n"
    assert json.loads((saved / "tokenizer_config.json").read_text())["eos_token"] == EOS


def test_a_declared_separator_outranks_the_manifest(tmp_path: Path) -> None:
    tokenizer(control=("<|pad|>", EOS), eos=EOS).save(tmp_path / "tok")
    assert Tokenizer.load(tmp_path / "tok").eos_token == EOS
    assert Tokenizer.load(tmp_path / "tok", eos_token="<|pad|>").eos_token_id == 259


def test_a_chat_separator_is_shown_and_not_used(tmp_path: Path) -> None:
    directory = write(tmp_path, control=(EOS, "<|im_end|>"))
    (directory / "tokenizer_config.json").write_text('{"eos_token": {"content": "<|im_end|>"}}')
    loaded = Tokenizer.load(directory)
    assert loaded.eos_token is None
    with pytest.raises(Refusal) as refused:
        loaded.require_eos_token_id()
    assert "tokenizer_config.json names <|im_end|>" in refused.value.found


def test_another_tools_manifest_declares_nothing(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "manifest.json").write_text('{"source": "somewhere", "eos_token": "<|x|>"}')
    assert Tokenizer.load(tmp_path).eos_token is None


def test_harmless_siblings_agree(tmp_path: Path) -> None:
    directory = write(tmp_path)
    ids = tokenizer().definition.ids
    config = {
        "eos_token": EOS,
        "pad_token": None,
        "unk_token": {"content": EOS},
        "add_bos_token": False,
        "additional_special_tokens": [EOS],
        "added_tokens_decoder": {"259": {"content": EOS, "special": True}},
        "chat_template": "{{ messages }}",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    (directory / "special_tokens_map.json").write_text(json.dumps({"bos_token": EOS}))
    (directory / "added_tokens.json").write_text(json.dumps({EOS: 259}))
    (directory / "vocab.json").write_text(json.dumps(ids))
    (directory / "merges.txt").write_text("h e\nhe l\nĠ he")
    assert Tokenizer.load(directory).vocab_size == 260
    del ids[EOS]
    (directory / "vocab.json").write_text(json.dumps(ids))
    assert Tokenizer.load(directory).vocab_size == 260


def test_an_edited_tokenizer_is_noticed(saved: Path) -> None:
    write(saved, set_in("pre_tokenizer", "use_regex", to=False))
    with pytest.raises(DamagedFile) as refused:
        Tokenizer.load(saved)
    assert refused.value.id == "tokenizer.manifest-mismatch"


@pytest.mark.parametrize(
    "fields",
    [
        {"vocab_size": "260"},
        {"unknown": 1},
        {"training": {}},
        {"eos_token_id": 258},
        {"eos_token": "he"},
        {"eos_token": None},
        {"vocab_size": 261},
        {"merges_count": 4},
        {"fingerprint": "0" * 64},
    ],
)
def test_a_damaged_manifest_is_refused(saved: Path, fields: dict[str, Any]) -> None:
    edit(saved / "manifest.json", **fields)
    with pytest.raises(DamagedFile) as refused:
        Tokenizer.load(saved)
    assert refused.value.id in {"tokenizer.sibling-damaged", "tokenizer.manifest-mismatch"}


def test_nothing_is_overwritten_without_consent(saved: Path) -> None:
    before = (saved / "tokenizer.json").read_bytes()
    other = tokenizer(set_in("normalizer", to={"type": "NFC"}))
    with pytest.raises(Refusal) as refused:
        other.save(saved)
    assert refused.value.id == "files.exists"
    assert (saved / "tokenizer.json").read_bytes() == before
    other.save(saved, overwrite=True)
    assert Tokenizer.load(saved).fingerprint == other.fingerprint


def test_overwriting_never_deletes_what_is_no_tokenizer(saved: Path) -> None:
    (saved / "model.safetensors").write_text("weights")
    with pytest.raises(Refusal) as refused:
        tokenizer().save(saved, overwrite=True)
    assert refused.value.id == "files.foreign-content"
    assert (saved / "model.safetensors").read_text() == "weights"
