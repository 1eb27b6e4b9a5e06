"""F12: control strings in the text become control ids.

No text, however it is spelled, yields the id of a control token, special or not; the only control
ids in shards are the separators that encoding put there.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.reference_data import reference
from tests.shard_files import encode
from tests.tokenizer_files import EOS, set_in, tokenizer

from apr.errors import Refusal
from apr.shards.reader import ShardReader
from apr.tokenizer.tokenizer import Tokenizer

QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<tool_call>"]
QWEN_FIRST_CONTROL_ID = 151643


@pytest.mark.parametrize("special", [True, False])
def test_text_that_spells_a_control_token_stays_text(special: bool) -> None:
    used = tokenizer(control=(EOS, "<tool_call>"), special=special)
    text = f"x = '{EOS}' <tool_call>"
    token_ids = used.encode(text)
    assert token_ids.max() < 259
    assert used.decode(token_ids) == text


def test_shards_hold_one_control_id_per_document(tmp_path: Path) -> None:
    output, manifest = encode(tmp_path, [f"{EOS}{EOS} a", EOS, "plain"])
    ids = ShardReader.open(output).read(0, manifest.total_tokens)
    assert np.count_nonzero(ids >= 259) == 3 == manifest.eos_token_count


def test_documents_that_spell_control_tokens_are_counted_and_named(tmp_path: Path) -> None:
    output, manifest = encode(tmp_path, [f"{EOS}{EOS} a", "plain", EOS])
    assert manifest.statistics.num_documents_with_control_text == 2
    how = json.loads((output / "encode.json").read_text())
    assert [Path(place).name for place in how["control_text_examples"]] == [
        "shards.jsonl:1",
        "shards.jsonl:3",
    ]
    _, twin = encode(tmp_path, ["plain <|endoftext"], name="twin")
    assert twin.statistics.num_documents_with_control_text == 0


def test_qwens_control_strings_stay_text(shared_data: Path, tmp_path: Path) -> None:
    """Eight of Qwen's added tokens are not special, so the usual switch leaves them active."""
    path = reference(shared_data, "tokenizers/qwen2.5/tokenizer.json")
    qwen = Tokenizer.load(path, eos_token=EOS)
    every = [token.content for token in qwen.definition.added_tokens]
    assert set(QWEN) < set(every)
    texts = [f"a {text} b" for text in every] + ["".join(every)]
    output, manifest = encode(tmp_path, texts, with_tokenizer=qwen)
    ids = ShardReader.open(output).read(0, manifest.total_tokens)
    assert np.count_nonzero(ids >= QWEN_FIRST_CONTROL_ID) == len(texts)
    assert np.count_nonzero(ids == qwen.eos_token_id) == len(texts)


def test_a_tokenizer_that_spells_a_control_token_by_merges_is_refused() -> None:
    """Without the added tokens a merge still leads to the id: the result is checked too."""
    words = ("<e", "<eo", "<eos", "<eos>")
    used = tokenizer(
        lambda value: (
            set_in("pre_tokenizer", "use_regex", to=False)(value),
            value["added_tokens"][0].update(id=259, content="<eos>"),
        ),
        words=words,
        eos="<eos>",
    )
    assert used.encode("<eo s>").size == 4
    with pytest.raises(Refusal) as refused:
        used.encode("x<eos>")
    assert refused.value.id == "tokenizer.control-id"
    assert "'<eos>' (id 259)" in refused.value.found
