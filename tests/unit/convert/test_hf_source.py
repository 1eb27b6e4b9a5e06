"""Reading a Hugging Face directory: files, index, tokenizer and what stands beside them."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.hf_models import (
    HEAD_DIM,
    hf_model,
    rotary_frequencies,
    save,
    with_tokenizer,
    write_index,
)
from tests.reference_data import reference

from apr.architecture import HF_CLASSES
from apr.convert.huggingface.source import read_hf_source
from apr.convert.source import Source
from apr.convert.values import check_values, read_values
from apr.errors import Refusal
from apr.progress import Progress

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def refusal_of(path: Path) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_hf_source(path)
    refusal = caught.value
    assert refusal.found
    assert refusal.expected
    assert refusal.fix
    return refusal


def arrays_of(source: Source) -> dict[str, bytes]:
    return {name: b"".join(tensor.chunks()) for name, tensor in source.tensors.items()}


@pytest.mark.parametrize("family", HF_CLASSES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shards", [1, 3])
def test_each_family(tmp_path: Path, family: str, tied: bool, shards: int) -> None:
    model = hf_model(family, tied=tied)
    source = read_hf_source(model.write(tmp_path, shards=shards))
    assert source.architecture.model_type == family
    assert source.architecture.tie_word_embeddings is tied
    assert list(source.tensors) == list(source.architecture.parameter_shapes())
    assert arrays_of(source) == {name: model.arrays[name].tobytes() for name in source.tensors}
    assert source.stored == source.tensors
    assert source.format == "safetensors"
    assert source.reference.rotary_pairs == "halves"
    assert source.notes == ("no tokenizer.json",)
    assert source.tokenizer is None
    assert check_values(source) == len(model.arrays)
    read = {path.name for path in source.files}
    assert read == {path.name for path in tmp_path.iterdir()}


def test_one_file_beside_its_config(tmp_path: Path) -> None:
    directory = hf_model().write(tmp_path)
    (directory / "model.safetensors").rename(directory / "step-5.safetensors")
    source = read_hf_source(directory / "step-5.safetensors")
    assert source.where == directory / "step-5.safetensors"
    assert source.files == (directory / "config.json", directory / "step-5.safetensors")


@pytest.mark.parametrize("dtype", ["<f4", "<f2", "<u2"])
def test_types_are_kept(tmp_path: Path, dtype: str) -> None:
    model = hf_model()
    model.arrays["model.norm.weight"] = np.ones(8, dtype)
    source = read_hf_source(model.write(tmp_path))
    found = source.tensors["model.norm.weight"].dtype
    assert found == {"<f4": "f32", "<f2": "f16", "<u2": "bf16"}[dtype]
    assert source.tensors[EMBEDDING].dtype == "f32"


def test_the_real_checkpoint(shared_data: Path, tmp_path: Path) -> None:
    weights = reference(shared_data, "checkpoints/stories260K/hf/model.safetensors")
    source = read_hf_source(weights.parent)
    assert source.architecture.num_parameters == 260_032
    assert len(source.tensors) == 47
    assert check_values(source) == 47
    assert source.tokenizer is not None
    assert source.tokenizer.vocab_size == 512
    assert source.hf_config["eos_token_id"] == 2
    assert source.notes == ()
    # Split over files it is the same model.
    shutil.copytree(weights.parent, tmp_path / "sharded")
    arrays = {
        name: np.frombuffer(data, "<f4").reshape(source.tensors[name].shape)
        for name, data in arrays_of(source).items()
    }
    (tmp_path / "sharded" / "model.safetensors").unlink()
    names = list(arrays)
    for file, part in (("a.safetensors", names[::2]), ("b.safetensors", names[1::2])):
        save(tmp_path / "sharded" / file, {name: arrays[name] for name in part})
    write_index(
        tmp_path / "sharded",
        dict.fromkeys(names[::2], "a.safetensors") | dict.fromkeys(names[1::2], "b.safetensors"),
    )
    assert arrays_of(read_hf_source(tmp_path / "sharded")) == arrays_of(source)


# Which files.


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    assert refusal_of(tmp_path / "absent").id == "files.not-found"
    assert refusal_of(tmp_path).id == "import.config-not-found"
    directory = hf_model().write(tmp_path / "x")
    (directory / "model.safetensors").unlink()
    refusal = refusal_of(directory)
    assert refusal.id == "import.weights-missing"
    assert refusal.found == "config.json"
    (tmp_path / "alone.safetensors").write_bytes(b"")
    assert refusal_of(tmp_path / "alone.safetensors").id == "import.config-not-found"


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt", ".pkl"])
def test_pickles_are_never_opened(tmp_path: Path, suffix: str) -> None:
    directory = hf_model().write(tmp_path)
    (directory / "model.safetensors").rename(directory / f"pytorch_model{suffix}")
    for path in (directory, directory / f"pytorch_model{suffix}"):
        refusal = refusal_of(path)
        assert refusal.id == "import.pickle"
        assert f"pytorch_model{suffix}" in refusal.found
        assert "safe_serialization=True" in refusal.fix
    # Beside safetensors they are only not read.
    model = hf_model()
    save(directory / "model.safetensors", model.arrays)
    assert f"not read: pytorch_model{suffix}" in read_hf_source(directory).notes


@pytest.mark.parametrize("file", ["adapter_config.json", "model_index.json"])
def test_what_is_no_model(tmp_path: Path, file: str) -> None:
    model = hf_model()
    model.files[file] = b"{}"
    refusal = refusal_of(model.write(tmp_path))
    assert refusal.id == "import.not-a-model"
    assert refusal.upstream_id == "FALSIFY-APR-PRETRAIN-ARCH-007"
    assert file in refusal.found


# The index.


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return hf_model().write(tmp_path / "model", shards=2)


def index_of(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "model.safetensors.index.json").read_text())


FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"{}",
        b'{"weight_map": {}}',
        b'{"weight_map": []}',
        b'{"weight_map": {"a": 1}}',
        b'{"weight_map": {"a": "x", "a": "y"}}',
        b"{",
    ],
)
def test_an_index_that_is_none(sharded: Path, text: bytes) -> None:
    (sharded / "model.safetensors.index.json").write_bytes(text)
    assert refusal_of(sharded).id == "import.index-damaged"


@pytest.mark.parametrize(
    "name",
    [
        "../model/model-00001-of-00002.safetensors",
        "sub/x.safetensors",
        "/etc/x.safetensors",
        "..\\x.safetensors",
        "..safetensors",
        ".hidden.safetensors",
        "x\0.safetensors",
        "pytorch_model.bin",
        "",
        "..",
    ],
)
def test_a_name_that_is_no_plain_name(sharded: Path, name: str) -> None:
    weight_map = index_of(sharded)["weight_map"]
    weight_map[EMBEDDING] = name
    write_index(sharded, weight_map)
    assert refusal_of(sharded).id == "import.index-path"


def test_a_link_out_of_the_directory(sharded: Path, tmp_path: Path) -> None:
    (sharded / FIRST).rename(tmp_path / "outside.safetensors")
    (sharded / FIRST).symlink_to(tmp_path / "outside.safetensors")
    refusal = refusal_of(sharded)
    assert refusal.id == "import.index-path"
    assert "outside.safetensors" in refusal.found


def test_links_within_and_of_the_hub_cache_are_followed(sharded: Path, tmp_path: Path) -> None:
    (sharded / FIRST).rename(sharded / "real.safetensors")
    (sharded / FIRST).symlink_to("real.safetensors")
    read_hf_source(sharded)
    # models--x--y/snapshots/REVISION/FILE leads to models--x--y/blobs/SHA256.
    snapshot = tmp_path / "models--x--y" / "snapshots" / "abc"
    blobs = tmp_path / "models--x--y" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in hf_model().write(tmp_path / "again", shards=2).iterdir():
        blob = blobs / hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    assert read_hf_source(snapshot).architecture.num_hidden_layers == 2


def test_a_shard_that_is_missing(sharded: Path) -> None:
    (sharded / SECOND).unlink()
    refusal = refusal_of(sharded)
    assert refusal.id == "import.shard-missing"
    assert refusal.found == f"no {SECOND}"
    assert refusal.exit_code == 3


def test_one_shard_named_by_itself(sharded: Path) -> None:
    refusal = refusal_of(sharded / FIRST)
    assert refusal.id == "import.one-shard"
    assert str(sharded) in refusal.fix


def test_a_stray_file_is_not_read_and_said(sharded: Path) -> None:
    save(sharded / "model-00003-of-00003.safetensors", {"x": np.ones(1, "<f4")})
    assert "not read: model-00003-of-00003.safetensors" in read_hf_source(sharded).notes


def test_weights_twice(sharded: Path) -> None:
    save(sharded / "model.safetensors", hf_model().arrays)
    assert refusal_of(sharded).id == "import.weights-twice"
    write_index(sharded, dict.fromkeys(hf_model().arrays, "model.safetensors"))
    assert "not read" in " ".join(read_hf_source(sharded).notes)


def test_an_index_that_knows_another_place(sharded: Path) -> None:
    weight_map = index_of(sharded)["weight_map"]
    assert weight_map[EMBEDDING] == FIRST
    weight_map[EMBEDDING] = SECOND
    write_index(sharded, weight_map)
    refusal = refusal_of(sharded)
    assert refusal.id == "import.index-differs"
    assert refusal.found == f"it is in {FIRST}"
    weight_map[EMBEDDING] = FIRST
    write_index(sharded, weight_map | {"model.extra": FIRST})
    assert refusal_of(sharded).found == "it is in no file of the index"
    del weight_map[EMBEDDING]
    write_index(sharded, weight_map)
    refusal = refusal_of(sharded)
    assert refusal.id == "import.index-differs"
    assert EMBEDDING in refusal.where


def test_a_tensor_in_two_shards(sharded: Path) -> None:
    weight_map = index_of(sharded)["weight_map"]
    arrays = hf_model().arrays
    part = {name: arrays[name] for name, file in weight_map.items() if file == SECOND}
    save(sharded / SECOND, part | {EMBEDDING: arrays[EMBEDDING]})
    refusal = refusal_of(sharded)
    assert refusal.id == "import.tensor-repeated"
    assert refusal.found == f"it is in {FIRST} and in {SECOND}"


def test_a_total_size_decides_nothing_and_is_said(sharded: Path) -> None:
    weight_map = index_of(sharded)["weight_map"]
    stored = sum(array.nbytes for array in hf_model().arrays.values())
    write_index(sharded, weight_map, metadata={"total_size": stored})
    assert read_hf_source(sharded).notes == ("no tokenizer.json",)
    write_index(sharded, weight_map, metadata={"total_size": 5})
    assert f"says 5 bytes of tensors, the files hold {stored}" in read_hf_source(sharded).notes[0]


# Extras that are compared and left out.


def test_rotary_buffers_of_old_checkpoints(tmp_path: Path) -> None:
    model = hf_model()
    name = "model.layers.{}.self_attn.rotary_emb.inv_freq"
    for layer in range(2):
        model.arrays[name.format(layer)] = rotary_frequencies(10_000.0)
    source = read_hf_source(model.write(tmp_path))
    assert "2 buffers of rotary frequencies" in source.notes[0]
    assert not any("inv_freq" in name for name in source.tensors)
    model.arrays[name.format(0)] = rotary_frequencies(10_000.0).astype("<f2")
    read_hf_source(model.write(tmp_path))


@pytest.mark.parametrize(
    ("array", "layer"),
    [
        (rotary_frequencies(1e6), "0"),
        (rotary_frequencies(10_000.0) * np.float32(1 + 1e-4), "0"),
        (rotary_frequencies(10_000.0).astype("<i4"), "0"),
        (rotary_frequencies(10_000.0)[:1], "0"),
        (np.full(HEAD_DIM // 2, np.nan, "<f4"), "0"),
        (rotary_frequencies(10_000.0), "2"),
    ],
)
def test_rotary_buffers_of_another_theta(tmp_path: Path, array: Any, layer: str) -> None:
    model = hf_model()
    model.arrays[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = array
    assert refusal_of(model.write(tmp_path)).id == "import.rotary-buffer-differs"


# Beside the weights.


def test_a_tokenizer_and_a_template(tmp_path: Path) -> None:
    model = with_tokenizer(hf_model())
    model.files["chat_template.jinja"] = "{{ 'ö' }}".encode()
    model.files["generation_config.json"] = b'{"eos_token_id": [2, 3]}'
    source = read_hf_source(model.write(tmp_path))
    assert source.tokenizer is not None
    assert source.tokenizer.eos_token is None
    assert source.chat_template == "{{ 'ö' }}"
    assert source.generation_config == {"eos_token_id": [2, 3]}
    assert source.notes == ()
    assert {path.name for path in source.files} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("inside", "beside", "taken", "note"),
    [
        ("A", None, "A", None),
        ("A", "A", "A", None),
        ("A", "B", "B", "another chat template"),
        (None, None, None, None),
        (
            [{"name": "tool", "template": "T"}, {"name": "default", "template": "D"}],
            None,
            "D",
            "only 'default'",
        ),
    ],
)
def test_where_a_chat_template_stands(
    tmp_path: Path, inside: Any, beside: str | None, taken: str | None, note: str | None
) -> None:
    model = with_tokenizer(hf_model())
    model.files["tokenizer_config.json"] = json.dumps({"chat_template": inside}).encode()
    if beside:
        model.files["chat_template.jinja"] = beside.encode()
    source = read_hf_source(model.write(tmp_path))
    assert source.chat_template == taken
    assert note is None or note in source.notes[0]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("generation_config.json", b"[]"),
        ("generation_config.json", b"{"),
        ("tokenizer_config.json", b"{"),
        ("chat_template.jinja", b"\xff"),
    ],
)
def test_a_damaged_sibling(tmp_path: Path, name: str, data: bytes) -> None:
    model = hf_model()
    model.files[name] = data
    refusal = refusal_of(model.write(tmp_path))
    assert refusal.id == "import.sibling-damaged"
    assert refusal.where.endswith(name)


def test_a_tokenizer_larger_than_the_embedding(tmp_path: Path) -> None:
    # 260 ids of the small tokenizer.
    for rows, is_refused in ((260, False), (259, True)):
        model = with_tokenizer(hf_model())
        model.config["vocab_size"] = rows
        model.arrays[EMBEDDING] = model.arrays[EMBEDDING][:rows]
        directory = model.write(tmp_path / str(rows))
        if is_refused:
            refusal = refusal_of(directory)
            assert refusal.id == "import.tokenizer-too-large"
            assert refusal.upstream_id == "FALSIFY-APR-PRETRAIN-ARCH-010"
        else:
            assert read_hf_source(directory).tokenizer is not None


def test_a_tokenizer_that_is_refused_refuses_the_import(tmp_path: Path) -> None:
    model = with_tokenizer(hf_model())
    model.files["tokenizer_config.json"] = b'{"eos_token": "<absent>"}'
    assert refusal_of(model.write(tmp_path)).id == "tokenizer.sibling-disagrees"


def test_a_sentencepiece_model_is_not_read_and_said(tmp_path: Path) -> None:
    model = hf_model()
    model.files["tokenizer.model"] = b"\n\x05"
    assert "tokenizer.model was not read" in read_hf_source(model.write(tmp_path)).notes[0]


# Values.


@pytest.mark.parametrize("dtype", ["<f4", "<f2", "<u2"])
def test_values_are_counted_in_every_type(tmp_path: Path, dtype: str) -> None:
    model = hf_model()
    values = np.array([0.0, -0.0, 1.5, -2.0, np.nan, -np.nan, np.inf, -np.inf], "<f4")
    as_bf16 = (values.view("<u4") >> 16).astype("<u2")
    model.arrays["model.norm.weight"] = as_bf16 if dtype == "<u2" else values.astype(dtype)
    source = read_hf_source(model.write(tmp_path))
    found = read_values(source.tensors["model.norm.weight"])
    assert found.num_elements == 8
    assert found.num_nan == 2
    assert found.num_infinite == 2
    assert found.num_nonzero == 6


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    source = read_hf_source(hf_model().write(tmp_path))
    seen: list[Progress] = []
    check_values(source, progress=seen.append)
    assert seen[-1].done == seen[-1].total == source.architecture.num_parameters


def test_quantised_tensors_are_not_looked_at(tmp_path: Path) -> None:
    source = read_hf_source(hf_model().write(tmp_path))
    tensors = dict(source.tensors)
    tensors[EMBEDDING] = replace(tensors[EMBEDDING], dtype="q4_k")
    assert check_values(replace(source, tensors=tensors)) == len(tensors) - 1
