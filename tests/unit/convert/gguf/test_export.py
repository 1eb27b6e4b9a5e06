"""A model as fields and tensors: gguf-py reads what llama.cpp's converter would have written."""

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from tests import gguf_models, tokenizer_files
from tests.gguf_models import (
    FAMILIES,
    LLAMA,
    LLAMA3,
    QWEN2,
    gguf_name,
    source_tensors,
    turned_rows,
    weights,
    whole,
)

from apr.architecture import Architecture, RopeScaling
from apr.convert.gguf.export import file_type, gguf_fields, gguf_tensors
from apr.convert.gguf.source import read_gguf_source
from apr.convert.gguf.writer import write_gguf
from apr.convert.source import SourceTensor
from apr.errors import Refusal

MISTRAL = replace(LLAMA, model_type="mistral")
ALL = FAMILIES | {"mistral": MISTRAL}


def export(architecture: Architecture, path: Path) -> Path:
    tensors = gguf_tensors(architecture, source_tensors(weights(architecture)))
    found = gguf_fields(
        architecture,
        tokenizer_files.tokenizer(),
        {"bos_token_id": 259, "eos_token_id": 259},
        file_type=file_type(tensors),
        name="a name",
        license="mit",
        chat_template="{{ x }}",
    )
    write_gguf(path, fields=found.fields, tensors=tensors)
    return path


@pytest.mark.parametrize("family", ALL)
def test_gguf_py_reads_the_tensors_of_a_conversion(family: str, tmp_path: Path) -> None:
    architecture = ALL[family]
    slug = "llama" if family not in ("qwen2", "qwen3") else family
    read = gguf.GGUFReader(export(architecture, tmp_path / "model.gguf"))
    as_llama = replace(architecture, model_type=slug)  # type: ignore[arg-type]
    arrays = turned_rows(as_llama, weights(architecture))
    expected = {gguf_name(name, slug): array for name, array in arrays.items()}
    found = {tensor.name: tensor.data for tensor in read.tensors}
    if architecture.rope_scaling:
        factors = found.pop("rope_freqs.weight")
        assert np.allclose(factors, gguf_models.llama3_factors(architecture), rtol=1e-5)
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name


@pytest.mark.parametrize("family", ALL)
def test_gguf_py_reads_the_fields_of_a_conversion(family: str, tmp_path: Path) -> None:
    architecture = ALL[family]
    path = export(architecture, tmp_path / "ours.gguf")
    fields = {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()}
    as_llama = MISTRAL if architecture is MISTRAL else architecture
    slug = {"mistral": "llama"}.get(as_llama.model_type, as_llama.model_type)
    made = gguf_models.model(replace(architecture, model_type=slug))  # type: ignore[arg-type]
    made.set("tokenizer.ggml.bos_token_id", 259)
    for key, (value, kind) in made.keys.items():
        assert fields[key] == (pytest.approx(value) if kind.name == "FLOAT32" else value), key
    assert fields["general.architecture"] == slug
    assert fields["general.file_type"] == 0
    assert fields["general.quantization_version"] == 2
    assert (fields["general.name"], fields["general.license"]) == ("a name", "mit")
    assert fields["tokenizer.chat_template"] == "{{ x }}"


@pytest.mark.parametrize("family", ALL)
def test_it_comes_back_as_it_was(family: str, tmp_path: Path) -> None:
    architecture = ALL[family]
    source = read_gguf_source(export(architecture, tmp_path / "model.gguf"))
    # GGUF has one name for both.
    slug = "llama" if family == "mistral" else architecture.model_type
    assert source.architecture == replace(architecture, model_type=slug)
    for name, array in weights(architecture).items():
        assert whole(source.tensors[name]) == array.tobytes()
    assert source.tokenizer
    assert source.tokenizer.json_bytes == tokenizer_files.tokenizer().json_bytes
    assert source.hf_config == {"bos_token_id": 259, "eos_token_id": 259}
    assert (source.chat_template, source.said) == ("{{ x }}", {"license": "mit"})


def test_unusual_numbers_of_llama_3s_scaling_come_back_too(tmp_path: Path) -> None:
    scaling = RopeScaling(
        factor=5.5,
        low_freq_factor=1.5,
        high_freq_factor=3.25,
        original_max_position_embeddings=1000,
    )
    architecture = replace(LLAMA3, rope_scaling=scaling)
    source = read_gguf_source(export(architecture, tmp_path / "model.gguf"))
    assert source.architecture == architecture


def typed(*dtypes: str) -> list[SourceTensor]:
    return [SourceTensor("a", dtype, (256, 256 + at), list) for at, dtype in enumerate(dtypes)]


@pytest.mark.parametrize(
    ("dtypes", "number"),
    [
        (("f32",), "ALL_F32"),
        (("f16", "f16", "f32"), "MOSTLY_F16"),
        (("bf16",), "MOSTLY_BF16"),
        (("q8_0",), "MOSTLY_Q8_0"),
        (("q6_k",), "MOSTLY_Q6_K"),
        (("q4_k", "q4_k", "q8_0"), "MOSTLY_Q4_K_S"),
        (("q4_k", "q4_k", "q6_k"), "MOSTLY_Q4_K_M"),
    ],
)
def test_the_file_type_is_llama_cpps(dtypes: tuple[str, ...], number: str) -> None:
    assert file_type(typed(*dtypes)) == gguf.LlamaFileType[number]


def refused(architecture: Architecture, tensors: dict[str, SourceTensor]) -> str:
    with pytest.raises(Refusal) as caught:
        gguf_tensors(architecture, tensors)
    return caught.value.id


def changed(name: str, **fields: object) -> dict[str, SourceTensor]:
    tensors = source_tensors(weights(LLAMA))
    tensors[name] = replace(tensors[name], **fields)  # type: ignore[arg-type]
    return tensors


UP, NORM = "model.layers.0.mlp.up_proj.weight", "model.norm.weight"


def test_what_gguf_cannot_say_is_refused() -> None:
    assert gguf_tensors(LLAMA, changed(UP, dtype="q8_0"))
    assert refused(LLAMA, changed(UP, dtype="q8")) == "gguf.dtype-not-expressible"
    assert refused(LLAMA, changed(UP, dtype="q4")) == "gguf.dtype-not-expressible"
    assert refused(LLAMA, changed(UP, dtype="q4_k")) == "gguf.rows-not-whole-blocks"
    assert refused(LLAMA, changed(NORM, dtype="f16")) == "gguf.vector-not-f32"
    assert refused(LLAMA, changed(UP, shape=(32, 48))) == "gguf.tensors-differ"
    tensors = source_tensors(weights(LLAMA))
    tensors["model.layers.0.self_attn.qkv_proj.weight"] = tensors.pop(UP)
    assert refused(LLAMA, tensors) == "gguf.tensors-differ"
    del tensors["model.layers.0.self_attn.qkv_proj.weight"]
    assert refused(LLAMA, tensors) == "gguf.tensors-differ"


def test_llama_3s_scaling_has_no_place_in_qwen() -> None:
    stretched = replace(QWEN2, rope_scaling=LLAMA3.rope_scaling)
    tensors = source_tensors(weights(stretched))
    assert refused(stretched, tensors) == "gguf.rope-scaling-not-expressible"
    with pytest.raises(Refusal, match=r"gguf\.rope-scaling-not-expressible"):
        gguf_fields(stretched, tokenizer_files.tokenizer(), {}, file_type=0)
