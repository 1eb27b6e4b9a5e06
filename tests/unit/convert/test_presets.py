"""The presets of published models are what their published configurations say, field by field."""

from pathlib import Path

import pytest
from tests.reference_data import reference

from apr.architecture import preset
from apr.convert.huggingface.config import read_config_object, read_hf_config


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("qwen2-0.5b", "qwen2.5-0.5b-instruct"),
        ("llama-3.2-1b", "llama-3.2-1b-instruct"),
        ("smollm2-135m", "smollm2-135m"),
    ],
)
def test_a_preset_is_the_published_configuration(shared_data: Path, name: str, file: str) -> None:
    path = reference(shared_data, f"configs/hf/{file}.config.json")
    published = read_hf_config(read_config_object(path), where=path).architecture
    assert preset(name, tokenizer_vocab_size=1) == published
