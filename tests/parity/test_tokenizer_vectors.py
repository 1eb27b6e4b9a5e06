"""Exact ids against what independent implementations published for real tokenizers."""

import json
from pathlib import Path

import pytest
import tokenizers
from tests.reference_data import reference

from apr.tokenizer.definition import read_definition
from apr.tokenizer.tokenizer import Tokenizer

SEPARATOR = "\n__ggml_vocab_test__\n"
PAIRS = [("gpt2", "gpt-2", 50257), ("qwen2.5", "qwen2", 151665)]


def vectors_of(shared_data: Path, vectors: str) -> tuple[list[str], list[list[int]]]:
    """Texts, and the ids that llama.cpp published for them."""
    texts_path = reference(shared_data, f"ggml-vocab/ggml-vocab-{vectors}.gguf.inp")
    with texts_path.open(encoding="utf-8", newline="") as opened:
        texts = opened.read().split(SEPARATOR)
    ids_path = reference(shared_data, f"ggml-vocab/ggml-vocab-{vectors}.gguf.out")
    lines = ids_path.read_text(encoding="utf-8").split("\n")
    assert len(texts) == len(lines) == 47
    return texts[:46], [[int(id) for id in line.split()] for line in lines[:46]]


@pytest.mark.parametrize(("name", "vectors", "vocab_size"), PAIRS)
def test_llama_cpps_vectors(shared_data: Path, name: str, vectors: str, vocab_size: int) -> None:
    used = Tokenizer.load(reference(shared_data, f"tokenizers/{name}/tokenizer.json"))
    texts, expected = vectors_of(shared_data, vectors)
    assert used.vocab_size == vocab_size
    assert [ids.tolist() for ids in used.encode_batch(texts)] == expected
    for text, ids in zip(texts, expected, strict=True):
        assert used.decode(ids) == used.normalize(text)


def test_stories260k_spells_its_reference(shared_data: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        reference(shared_data, f"checkpoints/stories260K/hf/{name}")
    used = Tokenizer.load(shared_data / "checkpoints/stories260K/hf")
    recorded = json.loads(
        reference(shared_data, "checkpoints/stories260K/hf_reference.json").read_text()
    )
    assert used.vocab_size == 512
    assert recorded["ids"][0] == 1
    assert used.encode(recorded["text"]).tolist() == recorded["ids"][1:]
    assert used.decode(recorded["ids"][1:]) == recorded["text"]


@pytest.mark.parametrize("name", ["gpt2", "qwen2.5"])
def test_the_librarys_own_spelling_is_the_same_tokenizer(shared_data: Path, name: str) -> None:
    """GPT-2's file of 2020 lacks model.type and use_regex; merges are strings there."""
    path = reference(shared_data, f"tokenizers/{name}/tokenizer.json")
    saved = tokenizers.Tokenizer.from_file(str(path)).to_str(pretty=True).encode()
    original = path.read_bytes()
    assert saved != original
    spelled_again = read_definition(saved, where="x")
    assert spelled_again.fingerprint == read_definition(original, where="x").fingerprint
    assert spelled_again.merges


def test_a_changed_reference_fails(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes((shared_data / "README.md").read_bytes())
    changed = tmp_path / "tokenizers" / "gpt2" / "tokenizer.json"
    changed.parent.mkdir(parents=True)
    changed.write_bytes(b"{}")
    with pytest.raises(pytest.fail.Exception, match="the README says 8414cab9"):
        reference(tmp_path, "tokenizers/gpt2/tokenizer.json")
