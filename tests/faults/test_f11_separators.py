"""F11: document separators guessed or missing.

The separator is declared or encoding is refused; it is a control token; and every set of shards
holds exactly as many as its policy says.
"""

from pathlib import Path

import pytest
from tests.reference_data import reference
from tests.shard_files import TEXTS, encode, ids_of, rewrite_shard
from tests.tokenizer_files import tokenizer

from apr.errors import Refusal
from apr.shards.reader import ShardReader
from apr.tokenizer.tokenizer import Tokenizer


def test_no_declaration_is_refused_and_the_candidates_are_named(tmp_path: Path) -> None:
    undeclared = tokenizer(eos=None, control=("<|endoftext|>", "</s>"))
    with pytest.raises(Refusal) as refused:
        encode(tmp_path, with_tokenizer=undeclared)
    assert refused.value.id == "tokenizer.eos-undeclared"
    assert "<|endoftext|>, </s>" in refused.value.found
    assert not (tmp_path / "shards").exists()


def test_a_tokenizer_without_control_tokens_has_nothing_to_declare() -> None:
    with pytest.raises(Refusal) as refused:
        tokenizer(eos=None, control=()).require_eos_token_id()
    assert "candidates: none" in refused.value.found


def test_an_ordinary_piece_is_no_separator() -> None:
    """As `</s>` in Qwen's vocabulary."""
    with pytest.raises(Refusal) as refused:
        tokenizer(words=("</", "</s", "</s>"), eos="</s>")
    assert refused.value.id == "tokenizer.eos-unknown"
    assert "an ordinary piece" in refused.value.found


def test_qwens_three_candidates_are_not_chosen_from(shared_data: Path) -> None:
    path = reference(shared_data, "tokenizers/qwen2.5/tokenizer.json")
    with pytest.raises(Refusal) as refused:
        Tokenizer.load(path, eos_token="</s>")
    assert refused.value.id == "tokenizer.eos-unknown"
    qwen = Tokenizer.load(path.parent)
    assert qwen.vocabulary[128247] == "</s>"
    with pytest.raises(Refusal) as refused:
        qwen.require_eos_token_id()
    assert "tokenizer_config.json names <|im_end|>" in refused.value.found


def test_a_missing_separator_is_noticed(tmp_path: Path) -> None:
    """The encoder that forgets one: every size and hash fits, the count does not."""
    output, _ = encode(tmp_path)
    assert ShardReader.open(output).manifest.eos_token_count == len(TEXTS)
    ids = ids_of(output, 0)
    rewrite_shard(output, 0, [*ids[:-1], ids[0]])
    with pytest.raises(Refusal) as refused:
        ShardReader.open(output)
    assert refused.value.id == "shards.separators"
    assert refused.value.found == f"{len(TEXTS) - 1} times id 259"
