"""What is written beside tokenizer.json for those who read a Hugging Face directory."""

import json
from pathlib import Path

import pytest
from tests import tokenizer_files
from tests.hf_models import hf_model, with_tokenizer

from apr.convert.huggingface.source import read_hf_source
from apr.convert.huggingface.tokenizer import write_hf_tokenizer
from apr.errors import DamagedFile
from apr.tokenizer.tokenizer import Tokenizer

SAYS_NOTHING = {"max_position_embeddings": 64} | dict.fromkeys(
    ("bos_token_id", "eos_token_id", "pad_token_id")
)


def written(directory: Path, tokenizer: Tokenizer) -> Path:
    directory.mkdir()
    write_hf_tokenizer(directory, tokenizer, SAYS_NOTHING)
    return directory


def test_a_declared_separator_is_declared_again(tmp_path: Path) -> None:
    there = written(tmp_path / "hf", tokenizer_files.tokenizer())
    assert Tokenizer.load(there).eos_token == tokenizer_files.EOS
    config = json.loads((there / "tokenizer_config.json").read_text())
    assert config["eos_token"] == tokenizer_files.EOS
    model = hf_model().write(tmp_path / "model")
    for file in there.iterdir():
        file.rename(model / file.name)
    again = read_hf_source(model)
    assert again.tokenizer is not None
    assert again.tokenizer.eos_token == tokenizer_files.EOS
    assert model / "manifest.json" in again.files


def test_what_was_not_declared_is_not_declared_by_an_export(tmp_path: Path) -> None:
    model = with_tokenizer(hf_model()).write(tmp_path / "model")
    (model / "tokenizer_config.json").write_text(json.dumps({"eos_token": tokenizer_files.EOS}))
    chat = Tokenizer.load(model)
    assert chat.eos_token is None
    there = written(tmp_path / "hf", chat)
    assert not (there / "manifest.json").exists()
    assert Tokenizer.load(there).eos_token is None


def test_a_declaration_belongs_to_the_bytes_beside_it(tmp_path: Path) -> None:
    there = written(tmp_path / "hf", tokenizer_files.tokenizer())
    path = there / "tokenizer.json"
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(DamagedFile) as refused:
        Tokenizer.load(there)
    assert refused.value.id == "tokenizer.manifest-mismatch"
