"""Directories that apr writes, loaded by transformers: same numbers, same ids, not a word said."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests import tokenizer_files
from tests.hf_load import listening, load, logits
from tests.hf_models import LLAMA3_SCALING, HfModel, hf_model, with_tokenizer
from tests.reference_data import reference
from transformers import AutoTokenizer

from apr.architecture import HF_CLASSES
from apr.convert.huggingface.directory import write_hf_directory
from apr.convert.huggingface.source import read_hf_source
from apr.convert.source import Source

IDS = [5, 1, 200, 31, 7, 90]
TEXTS = ["hello", "he 12345 hello  wörld\n\n  x e\u0301 it's", "<|endoftext|>he"]


def write(source: Source, output: Path, **options: Any) -> Path:
    write_hf_directory(
        output,
        **{
            "architecture": source.architecture,
            "tensors": source.tensors,
            "tokenizer": source.tokenizer,
            "hf_config": source.hf_config,
            "generation_config": source.generation_config,
            "chat_template": source.chat_template,
        }
        | options,
    )
    return output


def round_trip(model: HfModel, tmp_path: Path, **options: Any) -> tuple[Path, Path]:
    theirs = model.write(tmp_path / "theirs")
    return theirs, write(read_hf_source(theirs), tmp_path / "ours", **options)


@pytest.mark.parametrize("family", HF_CLASSES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("scaling", [None, LLAMA3_SCALING])
@pytest.mark.parametrize("max_shard_bytes", [5_000_000_000, 3000])
def test_each_family_loads_without_a_word(
    tmp_path: Path, family: str, tied: bool, scaling: Any, max_shard_bytes: int
) -> None:
    model = hf_model(family, tied=tied)
    model.config["rope_scaling"] = scaling
    theirs, ours = round_trip(model, tmp_path, max_shard_bytes=max_shard_bytes)
    loaded = load(ours)
    assert loaded.said == []
    assert type(loaded.model).__name__ == HF_CLASSES[family]
    head, embedding = loaded.model.get_output_embeddings(), loaded.model.get_input_embeddings()
    assert (head.weight is embedding.weight) is tied
    state = loaded.model.state_dict()
    assert state.keys() >= model.arrays.keys()
    for name, array in model.arrays.items():
        assert torch.equal(state[name], torch.from_numpy(array))
    assert torch.equal(logits(loaded.model, IDS), logits(load(theirs).model, IDS))


def test_a_warning_would_have_been_heard(tmp_path: Path) -> None:
    # The control of the test above: a lost tensor is something transformers speaks of.
    model = hf_model(tied=False)
    _, ours = round_trip(model, tmp_path)
    lost = {name: each for name, each in model.arrays.items() if name != "lm_head.weight"}
    HfModel(model.config, lost).write(ours)
    assert "lm_head.weight" in " ".join(load(ours).said)


@pytest.mark.parametrize("dtype", ["<f4", "<f2", "<u2"])
def test_the_type_of_the_tensors_is_the_type_that_is_loaded(tmp_path: Path, dtype: str) -> None:
    model = hf_model()
    if dtype == "<u2":
        model.arrays = {
            name: (array.view("<u4") >> 16).astype(dtype) for name, array in model.arrays.items()
        }
    else:
        model.arrays = {name: array.astype(dtype) for name, array in model.arrays.items()}
    _, ours = round_trip(model, tmp_path)
    loaded = load(ours)
    assert loaded.said == []
    wanted = {"<f4": torch.float32, "<f2": torch.float16, "<u2": torch.bfloat16}[dtype]
    assert loaded.model.dtype == wanted


def test_of_mixed_types_none_loses_a_bit(tmp_path: Path) -> None:
    model = hf_model()
    model.arrays["model.norm.weight"] = model.arrays["model.norm.weight"].astype("<f2")
    _, ours = round_trip(model, tmp_path)
    loaded = load(ours)
    assert loaded.said == []
    for name, array in model.arrays.items():
        assert torch.equal(loaded.model.state_dict()[name], torch.from_numpy(array.astype("<f4")))


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3"])
def test_the_tokenizer_gives_the_ids_of_tokenizer_json(tmp_path: Path, family: str) -> None:
    model = with_tokenizer(hf_model(family))
    model.config["eos_token_id"] = 259
    _, ours = round_trip(model, tmp_path, chat_template="{{ messages }}")
    own = tokenizer_files.tokenizer()
    with listening() as said:
        found = AutoTokenizer.from_pretrained(ours)
    assert said == []
    assert found.eos_token_id == 259
    assert found.chat_template == "{{ messages }}"
    assert found.pad_token is None
    for text in TEXTS[:2]:
        assert found(text)["input_ids"] == own.encode(text).tolist()
    assert found(TEXTS[2])["input_ids"][0] == 259


def test_qwens_tokenizer_in_a_qwen2(tmp_path: Path, shared_data: Path) -> None:
    file = reference(shared_data, "tokenizers/qwen2.5/tokenizer.json")
    model = hf_model("qwen2")
    model.config |= {"vocab_size": 151_936, "eos_token_id": 151_645}
    random = np.random.default_rng(0)
    model.arrays["model.embed_tokens.weight"] = random.standard_normal((151_936, 8)).astype("<f4")
    model.files["tokenizer.json"] = file.read_bytes()
    model.files["tokenizer_config.json"] = b'{"eos_token": "<|im_end|>"}'
    theirs, ours = round_trip(model, tmp_path)
    source = read_hf_source(theirs)
    with listening() as said:
        found = AutoTokenizer.from_pretrained(ours)
    assert said == []
    assert found.eos_token == "<|im_end|>"
    assert source.tokenizer is not None
    for text in TEXTS[:2]:
        assert found(text)["input_ids"] == source.tokenizer.encode(text).tolist()


def test_the_real_model_speaks_as_before(tmp_path: Path, shared_data: Path) -> None:
    directory = reference(shared_data, "checkpoints/stories260K/hf/model.safetensors").parent
    ours = write(read_hf_source(directory), tmp_path / "ours")
    loaded = load(ours)
    assert loaded.said == []
    before, after = load(directory).model, loaded.model
    assert torch.equal(logits(before, IDS), logits(after, IDS))
    text = "Once upon a time, there was a little girl"
    ids = [AutoTokenizer.from_pretrained(each)(text)["input_ids"] for each in (directory, ours)]
    assert ids[0] == ids[1]
    assert (ours / "tokenizer.json").read_bytes() == (directory / "tokenizer.json").read_bytes()
    again = read_hf_source(ours)
    assert again.architecture == read_hf_source(directory).architecture
    assert again.notes == ()


@pytest.mark.parametrize("family", HF_CLASSES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("max_shard_size", ["5GB", "10KB"])
def test_what_transformers_saves_is_read(
    tmp_path: Path, family: str, tied: bool, max_shard_size: str
) -> None:
    model = hf_model(family, tied=tied)
    model.config["rope_theta"] = 250_000.0
    plain = load(model.write(tmp_path / "plain")).model
    with listening():
        plain.save_pretrained(tmp_path / "saved", max_shard_size=max_shard_size)
    source = read_hf_source(tmp_path / "saved")
    assert source.architecture == read_hf_source(tmp_path / "plain").architecture
    assert source.reference == read_hf_source(tmp_path / "plain").reference
    assert {name: b"".join(tensor.chunks()) for name, tensor in source.tensors.items()} == {
        name: array.tobytes() for name, array in model.arrays.items()
    }
