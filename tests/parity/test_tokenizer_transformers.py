"""Tokenizer directories that apr wrote, opened by transformers."""

import json
from pathlib import Path

import pytest
from tests.reference_data import reference
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from apr.jobs.import_tokenizer import import_tokenizer
from apr.tokenizer.tokenizer import Tokenizer
from apr.tokenizer.train import train_bpe

TEXTS = ["def f(x):\n    return x\n" * 3, "été 世界 e\u0301 123456\t\r\n", ""]


def test_transformers_reads_what_apr_writes(tmp_path: Path) -> None:
    learned = train_bpe(TEXTS * 3, vocab_size=280)
    learned.save(tmp_path / "tok")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "tok")
    assert len(theirs) == learned.vocab_size
    assert theirs.eos_token_id == learned.eos_token_id
    for text in TEXTS:
        ids = learned.encode(text).tolist()
        assert theirs.encode(text, add_special_tokens=False) == ids
        assert theirs.decode(ids) == learned.decode(ids)


@pytest.mark.parametrize(
    ("name", "num_pieces", "num_entries", "num_merges"),
    [("gpt2", 50257, 50257, 50000), ("qwen2.5", 151643, 151665, 151387)],
)
def test_transformers_reads_what_apr_imports(
    shared_data: Path,
    tmp_path: Path,
    name: str,
    num_pieces: int,
    num_entries: int,
    num_merges: int,
) -> None:
    path = reference(shared_data, f"tokenizers/{name}/tokenizer.json")
    eos_token = "<|endoftext|>"
    output = tmp_path / "tok"
    imported = import_tokenizer(path, output=output, eos_token=eos_token)
    assert (output / "tokenizer.json").read_bytes() == path.read_bytes()
    assert len(json.loads((output / "vocab.json").read_text())) == num_pieces
    lines = (output / "merges.txt").read_text().split("\n")
    assert (lines[0], len(lines[1:-1])) == ("#version: 0.2", num_merges)
    import_tokenizer(path, output=tmp_path / "all", include_added_tokens=True, eos_token=eos_token)
    assert len(json.loads((tmp_path / "all" / "vocab.json").read_text())) == num_entries
    loaded = Tokenizer.load(output)
    for theirs in (
        AutoTokenizer.from_pretrained(output),
        PreTrainedTokenizerFast.from_pretrained(tmp_path / "all"),
    ):
        assert len(theirs) == loaded.vocab_size == num_entries
        assert theirs.eos_token_id == loaded.eos_token_id == imported.eos_token_id
        for text in TEXTS:
            assert theirs.encode(text, add_special_tokens=False) == loaded.encode(text).tolist()
