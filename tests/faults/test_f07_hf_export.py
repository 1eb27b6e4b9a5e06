"""F07: an export that others read differently, as a Hugging Face directory.

What the libraries could not express, or would read as something else, is refused before a file
exists. That they read the rest alike is in tests/parity/test_hf_directory.py.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests import tokenizer_files
from tests.hf_models import hf_model, with_tokenizer

from apr.convert.huggingface.directory import write_hf_directory
from apr.convert.huggingface.source import read_hf_source
from apr.convert.source import Source, SourceTensor
from apr.errors import Refusal

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


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


def refusal_of(source: Source, output: Path, **options: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        write(source, output, **options)
    assert not output.exists()
    return caught.value


def source_of(tmp_path: Path, family: str = "llama", *, tied: bool = True) -> Source:
    return read_hf_source(hf_model(family, tied=tied).write(tmp_path / f"{family}-{tied}"))


def config_of(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "config.json").read_text())


def test_the_harmless_twin(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    ours = read_hf_source(write(source, tmp_path / "out"))
    assert ours.architecture == source.architecture
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }


# F02: the tie state of the config is the tie state of the tensors.


def test_a_tied_model_that_has_a_head(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    head = replace(source.tensors[EMBEDDING], name=HEAD)
    refusal = refusal_of(source, tmp_path / "out", tensors={**source.tensors, HEAD: head})
    assert refusal.id == "export.tensors-differ"
    assert HEAD in refusal.where


def test_an_untied_model_without_a_head(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    untied = replace(source.architecture, tie_word_embeddings=False)
    refusal = refusal_of(source, tmp_path / "out", architecture=untied)
    assert refusal.id == "export.tensors-differ"
    assert HEAD in refusal.where


@pytest.mark.parametrize("tied", [True, False])
def test_the_flag_is_what_the_tensors_are(tmp_path: Path, tied: bool) -> None:
    source = source_of(tmp_path, tied=tied)
    out = write(source, tmp_path / "out", hf_config={"tie_word_embeddings": not tied})
    assert config_of(out)["tie_word_embeddings"] is tied


# F03: exactly the tensors.


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "q4_k"},
        {"dtype": "f64"},
        {"shape": (8, 264)},
        {"name": "model.embed.weight"},
    ],
)
def test_a_tensor_that_is_another(tmp_path: Path, change: dict[str, Any]) -> None:
    source = source_of(tmp_path)
    changed = replace(source.tensors[EMBEDDING], **change)
    refusal = refusal_of(source, tmp_path / "out", tensors={**source.tensors, EMBEDDING: changed})
    assert refusal.id == "export.tensors-differ"


def test_biases_that_the_family_has_no_place_for(tmp_path: Path) -> None:
    qwen2 = source_of(tmp_path, "qwen2")
    llama = source_of(tmp_path, "llama")
    refusal = refusal_of(llama, tmp_path / "out", tensors=qwen2.tensors)
    assert refusal.id == "export.tensors-differ"
    assert refusal.where.endswith("k_proj.bias'")


def test_a_source_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    # F36: stage, read back, rename; a tensor that ends early ends the export.
    source = source_of(tmp_path)
    whole = source.tensors[EMBEDDING]
    short = SourceTensor(EMBEDDING, "f32", whole.shape, lambda: [memoryview(bytes(4))])
    before = set(tmp_path.iterdir())
    refusal = refusal_of(source, tmp_path / "out", tensors={**source.tensors, EMBEDDING: short})
    assert refusal.id == "safetensors.written-size"
    assert set(tmp_path.iterdir()) == before


# F36: nothing is overwritten without consent, and nothing foreign at all.


def test_a_target_that_exists(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    out = write(source, tmp_path / "out")
    config = (out / "config.json").read_bytes()
    with pytest.raises(Refusal) as caught:
        write(source, out)
    assert caught.value.id == "files.exists"
    write(source_of(tmp_path, "qwen3"), out, overwrite=True)
    assert (out / "config.json").read_bytes() != config
    (out / "notes.txt").write_text("mine")
    with pytest.raises(Refusal) as caught:
        write(source, out, overwrite=True)
    assert caught.value.id == "files.foreign-content"
    assert (out / "notes.txt").exists()


# F01: what is recorded beside the architecture cannot change it.


def test_a_recorded_key_of_the_mathematics_is_left_out(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    recorded = {"hidden_act": "gelu", "rope_theta": 1.0, "mlp_bias": True, "model_type": "bert"}
    out = write(source, tmp_path / "out", hf_config=recorded)
    assert read_hf_source(out).architecture == source.architecture


@pytest.mark.parametrize(
    "recorded", [{"rope_magic": 2}, {"vision_config": {"a": 1}}, {"bos_token_id": 1 << 30}]
)
def test_a_recorded_key_that_is_refused_on_reading(
    tmp_path: Path, recorded: dict[str, Any]
) -> None:
    refusal = refusal_of(source_of(tmp_path), tmp_path / "out", hf_config=recorded)
    assert refusal.id == "export.read-back"


def test_a_llama_that_the_library_refuses_to_build(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    odd = replace(source.architecture, num_attention_heads=3, num_key_value_heads=3)
    assert refusal_of(source, tmp_path / "out", architecture=odd).id == "export.not-expressible"


# F11: special ids come from what was recorded and from nowhere else.


def test_ids_are_never_invented(tmp_path: Path) -> None:
    out = write(source_of(tmp_path), tmp_path / "out", hf_config={})
    config = config_of(out)
    # Written out: Llama's class takes 1 and 2 where the keys are left out.
    assert [config[f"{name}_token_id"] for name in ("bos", "eos", "pad")] == [None, None, None]
    assert not (out / "generation_config.json").exists()


def test_recorded_ids_are_kept_as_they_are(tmp_path: Path) -> None:
    ids = {"bos_token_id": 7, "eos_token_id": [2, 8, 9]}
    out = write(source_of(tmp_path), tmp_path / "out", hf_config=ids)
    assert ids.items() <= config_of(out).items()
    assert json.loads((out / "generation_config.json").read_text()) == ids
    kept = {"eos_token_id": 3, "temperature": 0.7}
    out = write(source_of(tmp_path), tmp_path / "kept", hf_config=ids, generation_config=kept)
    assert json.loads((out / "generation_config.json").read_text()) == kept


def test_what_the_source_said_of_itself_is_not_repeated(tmp_path: Path) -> None:
    recorded = {"_name_or_path": "/home/x", "transformers_version": "4.0", "auto_map": {"a": "b"}}
    out = write(source_of(tmp_path), tmp_path / "out", hf_config=recorded | {"torch_dtype": "x"})
    config = config_of(out)
    assert not {"_name_or_path", "auto_map"} & config.keys()
    # Ours: which spelling the file follows, whatever the source's was.
    assert config["transformers_version"] == "5.0.0"
    assert config["torch_dtype"] == "float32"


# Tokenizers.


def with_small_tokenizer(tmp_path: Path, family: str) -> Source:
    return read_hf_source(with_tokenizer(hf_model(family)).write(tmp_path / family))


def test_an_ordinary_piece_is_not_made_a_control_token(tmp_path: Path) -> None:
    # Id 5 is a letter: naming it as bos_token would make every such letter a control token.
    source = with_small_tokenizer(tmp_path, "llama")
    out = write(source, tmp_path / "out", hf_config={"bos_token_id": 5, "eos_token_id": 259})
    tokens = json.loads((out / "tokenizer_config.json").read_text())
    assert "bos_token" not in tokens
    assert tokens["eos_token"] == tokenizer_files.EOS
    assert tokens["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_a_tokenizer_that_would_be_read_as_qwens(tmp_path: Path) -> None:
    source = with_small_tokenizer(tmp_path, "qwen2")
    refusal = refusal_of(source, tmp_path / "out")
    assert refusal.id == "export.tokenizer-misread"
    assert "transformers 5" in refusal.expected
    # The way out that the refusal names, and the other families.
    write(source, tmp_path / "without", tokenizer=None)
    for family in ("llama", "mistral", "qwen3"):
        write(with_small_tokenizer(tmp_path, family), tmp_path / f"out-{family}")


def test_the_trap_is_still_there(tmp_path: Path) -> None:
    """When transformers no longer does this, the refusal can go."""
    from transformers import AutoTokenizer

    source = with_small_tokenizer(tmp_path, "qwen2")
    out = write(source, tmp_path / "out", tokenizer=None)
    assert source.tokenizer is not None
    source.tokenizer.save(tmp_path / "tokenizer")
    text = "he 12345"
    own = source.tokenizer.encode(text).tolist()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (out / file).write_bytes((tmp_path / "tokenizer" / file).read_bytes())
    assert type(AutoTokenizer.from_pretrained(out)).__name__ == "Qwen2Tokenizer"
    # And the way out: alone in a directory the tokenizer is read as it is.
    assert AutoTokenizer.from_pretrained(tmp_path / "tokenizer")(text)["input_ids"] == own


# Sharding.


def test_shards_hold_what_the_limit_allows(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    out = write(source, tmp_path / "out", max_shard_bytes=1500)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    files = sorted(out.glob("model-*.safetensors"))
    assert len(files) > 2
    assert {path.name for path in files} == set(index["weight_map"].values())
    assert files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    assert index["metadata"]["total_size"] == 4 * source.architecture.num_parameters
    largest = 264 * 8 * 4
    # The embedding is larger than the limit, and a file by itself.
    assert sorted(path.stat().st_size > 1500 + 1200 for path in files)[-2:] == [False, True]
    assert files[0].stat().st_size < largest + 200
    again = read_hf_source(out)
    assert again.notes == ("no tokenizer.json",)
    for name, tensor in source.tensors.items():
        assert b"".join(again.tensors[name].chunks()) == b"".join(tensor.chunks())
