"""F11: document separators guessed, where a model comes from Hugging Face.

What a config.json calls an end of text is recorded and shown; it separates documents only once
somebody declares it.
"""

from pathlib import Path
from typing import Any

import pytest
from tests import tokenizer_files
from tests.hf_models import HfModel, hf_model, with_tokenizer

from apr.convert.huggingface.source import read_hf_source
from apr.errors import Refusal


def model_with(**keys: Any) -> HfModel:
    model = with_tokenizer(hf_model())
    model.config |= keys
    return model


@pytest.mark.parametrize("eos", [259, [259, 5, 6], None])
def test_ids_are_recorded_and_never_a_separator(tmp_path: Path, eos: Any) -> None:
    source = read_hf_source(model_with(eos_token_id=eos).write(tmp_path))
    assert source.hf_config["eos_token_id"] == eos
    assert source.tokenizer is not None
    assert source.tokenizer.eos_token_id is None
    with pytest.raises(Refusal) as caught:
        source.tokenizer.require_eos_token_id()
    assert caught.value.id == "tokenizer.eos-undeclared"


def test_a_chat_turns_end_is_recorded_and_never_a_separator(tmp_path: Path) -> None:
    model = model_with()
    text = f'{{"eos_token": "{tokenizer_files.EOS}"}}'
    model.files["tokenizer_config.json"] = text.encode()
    source = read_hf_source(model.write(tmp_path))
    assert source.tokenizer is not None
    assert source.tokenizer.declaration.config_eos_token == tokenizer_files.EOS
    assert source.tokenizer.eos_token is None


def test_a_missing_id_stays_missing(tmp_path: Path) -> None:
    model = model_with()
    for key in ("bos_token_id", "eos_token_id"):
        del model.config[key]
    source = read_hf_source(model.write(tmp_path))
    assert not {"bos_token_id", "eos_token_id", "pad_token_id"} & source.hf_config.keys()


@pytest.mark.parametrize("eos", [264, -1_000, [2, 264], "</s>", 2.0, True])
def test_an_id_without_a_row_is_refused(tmp_path: Path, eos: Any) -> None:
    with pytest.raises(Refusal) as caught:
        read_hf_source(model_with(eos_token_id=eos).write(tmp_path))
    assert caught.value.id == "import.config-value"
    assert "eos_token_id" in caught.value.where
