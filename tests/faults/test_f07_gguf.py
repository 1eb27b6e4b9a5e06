"""F07: an export that others read differently, and F01 and F04 where the file is a GGUF.

A GGUF leaves much to its reader. What it cannot say is refused, what it says is read back, and
each fault below is planted in a file that is otherwise sound.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import gguf_models, tokenizer_files
from tests.gguf_models import LLAMA, source_tensors, weights, whole

from apr.convert.gguf import rows, values, vocabulary
from apr.convert.gguf.export import file_type, gguf_fields, gguf_tensors
from apr.convert.gguf.source import read_gguf_source
from apr.convert.gguf.values import Field
from apr.convert.gguf.writer import write_gguf
from apr.convert.source import Source, SourceTensor
from apr.errors import Refusal
from apr.tokenizer.tokenizer import Tokenizer

Q = "model.layers.1.self_attn.q_proj.weight"


def exported(
    path: Path,
    *,
    tokenizer: Tokenizer | None = None,
    spoil_fields: Callable[[dict[str, Field]], object] = lambda fields: None,
    spoil_tensors: Callable[[list[SourceTensor]], object] = lambda tensors: None,
) -> Source:
    """A model written by us, with one thing changed on its way into the file, and read again."""
    tensors = gguf_tensors(LLAMA, source_tensors(weights(LLAMA)))
    found = gguf_fields(
        LLAMA, tokenizer or tokenizer_files.tokenizer(), {}, file_type=file_type(tensors)
    )
    fields = {field.key: field for field in found.fields}
    spoil_fields(fields)
    spoil_tensors(tensors)
    write_gguf(path, fields=list(fields.values()), tensors=tensors)
    return read_gguf_source(path)


def refused(tmp_path: Path, spoil: Callable[[dict[str, Field]], object]) -> str:
    with pytest.raises(Refusal) as caught:
        exported(tmp_path / "model.gguf", spoil_fields=spoil)
    return caught.value.id


def test_the_harmless_twin(tmp_path: Path) -> None:
    source = exported(tmp_path / "model.gguf")
    assert source.architecture == LLAMA
    for name, array in weights(LLAMA).items():
        assert whole(source.tensors[name]) == array.tobytes()


@pytest.mark.parametrize("pre", ["qwen2", "llama-bpe", "default"])
def test_pre_set_to_another_name(pre: str, tmp_path: Path) -> None:
    spoil = {vocabulary.PRE: values.text(vocabulary.PRE, pre)}
    assert refused(tmp_path, lambda fields: fields.update(spoil)) == "gguf.tokenizer-disagrees"


def test_pre_absent(tmp_path: Path) -> None:
    assert (
        refused(tmp_path, lambda fields: fields.pop(vocabulary.PRE)) == "gguf.tokenizer-disagrees"
    )


def test_pre_absent_from_a_file_of_others(tmp_path: Path) -> None:
    made = gguf_models.model()
    del made.keys[vocabulary.PRE]
    source = read_gguf_source(made.write(tmp_path / "model.gguf"))
    assert source.tokenizer is None


def test_merges_missing(tmp_path: Path) -> None:
    assert refused(tmp_path, lambda fields: fields.pop(vocabulary.MERGES)) == "gguf.merges-missing"


def test_tokenizer_absent() -> None:
    with pytest.raises(Refusal, match=r"gguf\.tokenizer-missing"):
        gguf_fields(LLAMA, None, {}, file_type=0)


def unmoved(tensors: list[SourceTensor]) -> None:
    at = [tensor.name for tensor in tensors].index("blk.1.attn_q.weight")
    tensors[at] = rows.to_halves(tensors[at], head_dim=LLAMA.head_dim)


def test_queries_without_the_permutation_are_another_model(tmp_path: Path) -> None:
    """No reader can refuse it, so the proof compares: what comes back is not what was written."""
    source = exported(tmp_path / "model.gguf", spoil_tensors=unmoved)
    assert whole(source.tensors[Q]) != weights(LLAMA)[Q].tobytes()
    assert sorted(whole(source.tensors[Q])) == sorted(weights(LLAMA)[Q].tobytes())


def test_fused_names_are_refused_on_both_ways(tmp_path: Path) -> None:
    tensors = source_tensors(weights(LLAMA))
    tensors["model.layers.0.self_attn.qkv_proj.weight"] = tensors.pop(Q)
    with pytest.raises(Refusal, match=r"gguf\.tensors-differ"):
        gguf_tensors(LLAMA, tensors)
    made = gguf_models.model()
    made.arrays["blk.0.attn_qkv.weight"] = made.arrays.pop("blk.0.attn_q.weight")
    with pytest.raises(Refusal, match=r"import\.tensor-unexpected"):
        read_gguf_source(made.write(tmp_path / "model.gguf"))


def test_the_containers_own_blocks_are_not_written_as_something_else() -> None:
    """AprQ8 once went into a GGUF as a corrupt Q8_0 (paiml/aprender#1922)."""
    tensors = source_tensors(weights(LLAMA))
    for dtype in ("q8", "q4"):
        tensors[Q] = replace(tensors[Q], dtype=dtype)
        with pytest.raises(Refusal, match=r"gguf\.dtype-not-expressible"):
            gguf_tensors(LLAMA, tensors)


@pytest.mark.parametrize("dtype", ["q4_k", "q6_k"])
def test_blocks_for_rows_that_they_do_not_divide(dtype: str) -> None:
    tensors = source_tensors(weights(LLAMA))
    tensors[Q] = replace(tensors[Q], dtype=dtype)
    with pytest.raises(Refusal, match=r"gguf\.rows-not-whole-blocks"):
        gguf_tensors(LLAMA, tensors)


@pytest.mark.parametrize(
    ("by", "id"),
    [(-32, "gguf.tensors-overlap"), (1, "gguf.tensor-unaligned"), (1 << 40, "out-of-bounds")],
)
def test_an_offset_that_is_wrong(by: int, id: str, tmp_path: Path) -> None:
    path = gguf_models.model().write(tmp_path / "model.gguf")
    data = path.read_bytes()
    name = b"blk.1.attn_norm.weight"
    # After the name: number of dimensions, one dimension, type, offset.
    at = data.index(name) + len(name) + 4 + 8 + 4
    offset = int.from_bytes(data[at : at + 8], "little") + by
    path.write_bytes(data[:at] + offset.to_bytes(8, "little") + data[at + 8 :])
    with pytest.raises(Refusal, match=id):
        read_gguf_source(path)


def test_an_offset_moved_onto_padding_reads_other_bytes_and_never_silently_the_same(
    tmp_path: Path,
) -> None:
    """Two offsets exchanged are sound as claims: only a comparison of values can tell."""
    made = gguf_models.model()
    first, second = "blk.0.attn_norm.weight", "blk.1.attn_norm.weight"
    made.arrays[first], made.arrays[second] = made.arrays[second], made.arrays[first]
    source = read_gguf_source(made.write(tmp_path / "model.gguf"))
    name = "model.layers.0.input_layernorm.weight"
    assert whole(source.tensors[name]) != weights(LLAMA)[name].tobytes()


# --- F04: identity


@pytest.mark.parametrize("slug", ["mistral", "qwen2moe", "bert", "llama4", "unheard-of"])
def test_a_slug_that_is_unknown_has_no_fallback(slug: str, tmp_path: Path) -> None:
    made = gguf_models.model()
    made.slug = slug
    with pytest.raises(Refusal, match=r"gguf\.family"):
        read_gguf_source(made.write(tmp_path / "model.gguf"))


@pytest.mark.parametrize("slug", ["qwen2", "qwen3"])
def test_a_slug_that_the_tensors_contradict(slug: str, tmp_path: Path) -> None:
    made = gguf_models.model()
    for key in [key for key in made.keys if key.startswith("llama.")]:
        made.keys[key.replace("llama.", f"{slug}.")] = made.keys.pop(key)
    made.slug = slug
    with pytest.raises(Refusal, match=r"import\.tensor-missing"):
        read_gguf_source(made.write(tmp_path / "model.gguf"))


# --- F01: fields that change what is computed


@pytest.mark.parametrize(
    ("key", "value"), [("llama.rope.freq_base", 1e6), ("attention.layer_norm_rms_epsilon", 1e-3)]
)
def test_numbers_of_the_computation_are_taken_from_the_file_alone(
    key: str, value: float, tmp_path: Path
) -> None:
    key = key if key.startswith("llama.") else f"llama.{key}"
    source = exported(
        tmp_path / "model.gguf",
        spoil_fields=lambda fields: fields.update({key: values.float32(key, value)}),
    )
    assert value in (source.architecture.rope_theta, source.architecture.rms_norm_eps)
    assert value in (source.reference.rope_theta, source.reference.rms_norm_eps)


def test_a_normalizer_that_readers_do_not_have(tmp_path: Path) -> None:
    def lowercase(value: dict[str, Any]) -> None:
        value["normalizer"] = {"type": "Lowercase"}

    data = json.loads(tokenizer_files.changed(lowercase))
    assert data["normalizer"]
    with pytest.raises(Refusal, match=r"gguf\.normalizer-unknown"):
        exported(tmp_path / "model.gguf", tokenizer=tokenizer_files.tokenizer(lowercase))


def test_a_head_that_came_apart_from_the_embedding_is_kept(tmp_path: Path) -> None:
    """F02: 1e-2 added to a repeated head makes it a head of its own, not a tie."""
    made = gguf_models.model()
    made.arrays["output.weight"] = made.arrays["token_embd.weight"] + np.float32(1e-2)
    source = read_gguf_source(made.write(tmp_path / "model.gguf"))
    assert not source.architecture.tie_word_embeddings
    assert "lm_head.weight" in source.tensors
