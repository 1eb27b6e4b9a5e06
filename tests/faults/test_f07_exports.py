"""F07: a fault on the way into an export is seen when the written files are opened again.

The judge is a fresh process that knows nothing but the files. Nothing is left of what it refuses.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tests import tokenizer_files
from tests.container_models import ModelFile
from tests.source_models import (
    ARCHITECTURES,
    QUICK,
    Fault,
    adjacent_rows,
    random_arrays,
    swapped,
    tensors,
    with_array,
    with_field,
)

from apr.architecture import Architecture
from apr.container.embedded_tokenizer import embed_tokenizer
from apr.container.metadata import metadata_from_architecture
from apr.container.writer import TensorSource, write_container
from apr.convert.apr_source import read_apr_source
from apr.convert.precision import converted
from apr.convert.source import Source
from apr.convert.weights import decoded_chunks
from apr.errors import Refusal
from apr.jobs.export_gguf import export_gguf, judge_gguf
from apr.jobs.export_hf import export_hf, judge_hf
from apr.jobs.fresh_process import in_this_process
from apr.progress import silent

VOCAB = 264
LLAMA = replace(ARCHITECTURES["llama-tied"], vocab_size=VOCAB)
SCALED = replace(ARCHITECTURES["llama-tied-scaled"], vocab_size=VOCAB)
QWEN2 = replace(ARCHITECTURES["qwen2-untied"], vocab_size=VOCAB)
MODELS = {"llama": LLAMA, "scaled": SCALED, "qwen2": QWEN2}
LAYER = "model.layers.1."
Q = f"{LAYER}self_attn.q_proj.weight"
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def write(
    path: Path, architecture: Architecture, change: tokenizer_files.Change = tokenizer_files.nothing
) -> Path:
    free = embed_tokenizer(tokenizer_files.tokenizer(change))
    metadata = metadata_from_architecture(
        architecture, num_parameters=architecture.num_parameters, free=free
    )
    return ModelFile(architecture, dict(random_arrays(architecture)), metadata).write(path)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A container of each architecture; Qwen2 without the tokenizer that Hugging Face misreads."""
    directory = tmp_path_factory.mktemp("models")
    found = {name: write(directory / f"{name}.apr", each) for name, each in MODELS.items()}
    silent_metadata = metadata_from_architecture(
        QWEN2, num_parameters=QWEN2.num_parameters, free={}
    )
    mute = ModelFile(QWEN2, dict(random_arrays(QWEN2)), silent_metadata)
    return found | {"mute": mute.write(directory / "mute.apr")}


def untied(good: Source) -> Source:
    """The embedding as it is, and beside it a head that drifted from it."""
    drifted = with_array(EMBEDDING, lambda rows: rows + np.float32(1e-2))(good)
    head = replace(drifted.tensors[EMBEDDING], name=HEAD)
    architecture = replace(good.architecture, tie_word_embeddings=False)
    return replace(good, architecture=architecture, tensors={**good.tensors, HEAD: head})


def retied(good: Source) -> Source:
    """The head left out, as if it were the embedding."""
    kept = {name: each for name, each in good.tensors.items() if name != HEAD}
    architecture = replace(good.architecture, tie_word_embeddings=True)
    return replace(good, architecture=architecture, tensors=kept)


def same(good: Source) -> Source:
    return good


ROPE_THETA = with_field(rope_theta=10_000.0)
EPS = with_field(rms_norm_eps=1e-3)
PERMUTED = with_array(Q, adjacent_rows(4))
ZEROED = with_array(f"{LAYER}self_attn.q_proj.bias", np.zeros_like)
SWAPPED = swapped("model.layers.0.mlp.up_proj.weight", "model.layers.2.mlp.up_proj.weight")
TRANSPOSED = with_array(f"{LAYER}self_attn.o_proj.weight", np.transpose)
UNSCALED = with_field(rope_scaling=None)

_HF = [
    pytest.param("llama", ROPE_THETA, "proof.differs", "rope_theta", id="rope-theta"),
    pytest.param("llama", EPS, "proof.differs", "rms_norm_eps", id="rms-norm-eps"),
    pytest.param("llama", PERMUTED, "proof.differs", Q, id="query-rows-permuted"),
    pytest.param("mute", ZEROED, "proof.differs", "q_proj.bias", id="bias-zeroed"),
    pytest.param("llama", SWAPPED, "proof.differs", "up_proj.weight", id="layers-swapped"),
    pytest.param("llama", TRANSPOSED, "proof.differs", "o_proj.weight", id="square-transposed"),
    pytest.param("llama", untied, "proof.differs", HEAD, id="tie-broken"),
    pytest.param("mute", retied, "proof.differs", HEAD, id="head-lost"),
    pytest.param("scaled", UNSCALED, "proof.differs", "rope_scaling", id="scaling-lost"),
]
_GGUF = [
    pytest.param("llama", ROPE_THETA, "proof.differs", "rope_theta", id="rope-theta"),
    pytest.param("llama", EPS, "proof.differs", "rms_norm_eps", id="rms-norm-eps"),
    # What a writer does that leaves GGUF's order of rows out, or applies it twice.
    pytest.param("llama", PERMUTED, "proof.differs", Q, id="query-rows-permuted"),
    pytest.param("qwen2", ZEROED, "proof.differs", "q_proj.bias", id="bias-zeroed"),
    pytest.param("llama", untied, "proof.differs", HEAD, id="tie-broken"),
    pytest.param("scaled", UNSCALED, "proof.differs", "queries after rotary", id="scaling-lost"),
]


def refused(export: Callable[[], object], directory: Path) -> Refusal:
    with pytest.raises(Refusal) as caught:
        export()
    assert list(directory.iterdir()) == []
    return caught.value


@pytest.mark.parametrize(("model", "fault", "id", "named"), _HF)
def test_a_fault_in_a_directory_is_named(
    models: dict[str, Path], tmp_path: Path, model: str, fault: Fault, id: str, named: str
) -> None:
    refusal = refused(
        lambda: export_hf(
            models[model],
            output=tmp_path / "hf",
            between=fault,
            **QUICK,
        ),
        tmp_path,
    )
    assert refusal.id == id
    assert named in f"{refusal.where} {refusal.found}"


@pytest.mark.parametrize(("model", "fault", "id", "named"), _GGUF)
def test_a_fault_in_a_gguf_is_named(
    models: dict[str, Path], tmp_path: Path, model: str, fault: Fault, id: str, named: str
) -> None:
    refusal = refused(
        lambda: export_gguf(
            models[model], output=tmp_path / "m.gguf", between=fault, run_proof=in_this_process
        ),
        tmp_path,
    )
    assert refusal.id == id
    assert named in f"{refusal.where} {refusal.found}"


@pytest.mark.parametrize("model", ["llama", "scaled", "mute"])
def test_the_harmless_twins(models: dict[str, Path], tmp_path: Path, model: str) -> None:
    exported = export_hf(
        models[model],
        output=tmp_path / "hf",
        between=same,
        **QUICK,
    )
    assert exported.proof.reference.num_layers == 3
    if model != "mute":
        exported = export_gguf(
            models[model], output=tmp_path / "m.gguf", between=same, run_proof=in_this_process
        )
        assert exported.proof.reference.max_relative_error < 1e-5


# --- changed after it was written, before it was opened again


@pytest.fixture(scope="module")
def written(
    models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Path], Path]:
    """Copies of sound exports, made once."""
    directory = tmp_path_factory.mktemp("written")
    export_hf(models["llama"], output=directory / "hf", **QUICK)
    export_gguf(models["llama"], output=directory / "gguf", run_proof=in_this_process)

    def copy(kind: str, target: Path) -> Path:
        if kind == "gguf":
            target.write_bytes((directory / kind).read_bytes())
            return target
        target.mkdir()
        for file in (directory / kind).iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        return target

    return copy


def judged(models: dict[str, Path], written: Path) -> None:
    original = read_apr_source(models["llama"])
    if written.is_dir():
        judge_hf(original, written, ask_transformers=False, progress=silent)
    else:
        judge_gguf(original, written, progress=silent)


def with_config(**fields: Any) -> Callable[[Path], None]:
    def tamper(directory: Path) -> None:
        config = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps(config | fields))

    return tamper


def one_bit(tensor: str) -> Callable[[Path], None]:
    """The highest bit of the exponent of a tensor's first value, in a safetensors file."""

    def tamper(directory: Path) -> None:
        file = directory / "model.safetensors"
        data = bytearray(file.read_bytes())
        size = int.from_bytes(data[:8], "little")
        begin = json.loads(data[8 : 8 + size])[tensor]["data_offsets"][0]
        data[8 + size + begin + 3] ^= 0x40
        file.write_bytes(data)

    return tamper


@pytest.mark.parametrize(
    ("tamper", "id"),
    [
        (with_config(), None),
        (with_config(rope_theta=10_000.0), "proof.differs"),
        (with_config(rms_norm_eps=1e-5), "proof.differs"),
        (with_config(num_key_value_heads=4), "import.tensor-shape-differs"),
        (one_bit(Q), "proof.differs"),
        (one_bit("model.norm.weight"), "proof.differs"),
        (one_bit(EMBEDDING), "proof.differs"),
    ],
)
def test_a_directory_that_was_changed_after_it_was_written(
    models: dict[str, Path],
    written: Callable[[str, Path], Path],
    tmp_path: Path,
    tamper: Callable[[Path], None],
    id: str | None,
) -> None:
    directory = written("hf", tmp_path / "hf")
    tamper(directory)
    if id is None:
        return judged(models, directory)
    with pytest.raises(Refusal) as caught:
        judged(models, directory)
    assert caught.value.id == id


@pytest.mark.parametrize(
    ("tensor", "byte"), [("blk.1.attn_q.weight", 0x40), ("token_embd.weight", 0x40), (None, 0)]
)
def test_a_gguf_that_was_changed_after_it_was_written(
    models: dict[str, Path],
    written: Callable[[str, Path], Path],
    tmp_path: Path,
    tensor: str | None,
    byte: int,
) -> None:
    file = written("gguf", tmp_path / "m.gguf")
    if tensor is None:
        return judged(models, file)
    found = next(each for each in gguf.GGUFReader(file).tensors if each.name == tensor)
    data = bytearray(file.read_bytes())
    data[int(found.data_offset) + 3] ^= byte
    file.write_bytes(data)
    with pytest.raises(Refusal) as caught:
        judged(models, file)
    assert caught.value.id == "proof.differs"
    return None


def test_another_vocabulary_in_a_gguf(
    models: dict[str, Path], written: Callable[[str, Path], Path], tmp_path: Path
) -> None:
    """Two pieces exchanged, in the list and in tokenizer.json: the file agrees with itself."""
    file = written("gguf", tmp_path / "m.gguf")
    data = file.read_bytes()
    length = (1).to_bytes(8, "little")
    for before, after in (
        (length + b"A" + length + b"B", length + b"B" + length + b"A"),
        (b'"A": 32, "B": 33', b'"B": 32, "A": 33'),
    ):
        assert data.count(before) == 1
        data = data.replace(before, after)
    file.write_bytes(data)
    with pytest.raises(Refusal) as caught:
        judged(models, file)
    assert caught.value.id == "gguf.tokenizer-differs"


def test_a_tie_that_breaks_and_computes_the_same(models: dict[str, Path], tmp_path: Path) -> None:
    """The head is a copy of the embedding: the numbers agree, and training it would not."""

    def copied(good: Source) -> Source:
        head = replace(good.tensors[EMBEDDING], name=HEAD)
        architecture = replace(good.architecture, tie_word_embeddings=False)
        return replace(good, architecture=architecture, tensors={**good.tensors, HEAD: head})

    refusal = refused(
        lambda: export_hf(
            models["llama"],
            output=tmp_path / "hf",
            between=copied,
            **QUICK,
        ),
        tmp_path,
    )
    assert refusal.id == "proof.config-differs"
    assert HEAD in refusal.found


# --- what GGUF cannot say


def test_a_gguf_without_a_tokenizer(models: dict[str, Path], tmp_path: Path) -> None:
    refusal = refused(
        lambda: export_gguf(models["mute"], output=tmp_path / "m.gguf", run_proof=in_this_process),
        tmp_path,
    )
    assert refusal.id == "gguf.tokenizer-missing"


def test_a_gguf_whose_pre_tokenizer_has_no_name(tmp_path: Path) -> None:
    split = {
        "type": "Split",
        "pattern": {"Regex": "a|b"},
        "behavior": "Isolated",
        "invert": False,
    }
    byte_level = tokenizer_files.BYTE_LEVEL | {"use_regex": False}
    both = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    model = write(tmp_path / "m.apr", LLAMA, tokenizer_files.set_in("pre_tokenizer", to=both))
    before = set(tmp_path.iterdir())
    with pytest.raises(Refusal) as caught:
        export_gguf(model, output=tmp_path / "m.gguf", run_proof=in_this_process)
    assert caught.value.id == "gguf.pre-tokenizer-unknown"
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("dtype", ["q8", "q4"])
def test_the_containers_own_blocks_become_the_values_they_stand_for(
    tmp_path: Path, dtype: str
) -> None:
    """AprQ8 once went into a GGUF as a corrupt Q8_0 (paiml/aprender#1922)."""
    made = tensors(random_arrays(LLAMA))
    made[Q] = converted(made[Q], dtype)
    metadata = metadata_from_architecture(
        LLAMA,
        num_parameters=LLAMA.num_parameters,
        free=embed_tokenizer(tokenizer_files.tokenizer()),
    )
    written = [TensorSource(e.name, e.dtype, e.shape, e.chunks) for e in made.values()]
    write_container(tmp_path / "m.apr", metadata=metadata, tensors=written)
    export_gguf(tmp_path / "m.apr", output=tmp_path / "m.gguf", run_proof=in_this_process)
    found = {each.name: each for each in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert {each.tensor_type.name for each in found.values()} == {"F32"}
    expected = np.concatenate(list(decoded_chunks(made[Q]))).reshape(made[Q].shape)
    assert np.abs(expected - random_arrays(LLAMA)[Q]).max() > 0
    assert np.array_equal(found["blk.1.attn_q.weight"].data, adjacent_rows(4)(expected))
