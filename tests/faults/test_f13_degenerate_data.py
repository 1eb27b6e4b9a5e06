"""F13: degenerate data accepted.

Text that its ids do not spell is refused while encoding; what a corpus looks like stands in the
manifest, where the gates before training read it.
"""

import base64
import random
from pathlib import Path
from typing import Any

import pytest
from tests.shard_files import encode
from tests.tokenizer_files import nothing, tokenizer

from apr.errors import Refusal
from apr.shards.encode import encode_corpus

PROSE = ["the quick brown fox jumps over the lazy dog, hello there\n" * 3] * 4


def hex_vocabulary(value: dict[str, Any]) -> None:
    """Two hexadecimal digits for each byte, as in an upstream tokenizer: text is unknown to it."""
    pieces = [f"{byte:02x}" for byte in range(256)]
    value["model"] = {
        "type": "BPE",
        "vocab": {piece: id for id, piece in enumerate([*pieces, "<unk>"])},
        "merges": [],
        "unk_token": "<unk>",
        "fuse_unk": False,
    }
    value["pre_tokenizer"], value["decoder"] = None, None
    value["added_tokens"] = [value["added_tokens"][0] | {"id": 257}]


def test_a_corpus_that_is_unknown_to_the_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        encode(tmp_path, PROSE, with_tokenizer=tokenizer(hex_vocabulary))
    assert refused.value.id == "shards.text-lost"
    assert "<unk>" in refused.value.found
    assert not (tmp_path / "shards").exists()


def test_an_unknown_character_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    """Every document is compared, not a sample, when bytes cannot be counted."""

    def letters_only(value: dict[str, Any]) -> None:
        hex_vocabulary(value)
        value["model"]["vocab"] = {chr(97 + id): id for id in range(26)}
        value["model"]["unk_token"] = None
        value["added_tokens"][0]["id"] = 26
        value["decoder"] = {"type": "Fuse"}

    used = tokenizer(letters_only)
    texts = ["abc"] * 60
    _, manifest = encode(tmp_path, texts, with_tokenizer=used, name="fine")
    assert manifest.total_documents == 60
    with pytest.raises(Refusal) as refused:
        encode(tmp_path, [*texts, "ab!c"], with_tokenizer=used)
    assert refused.value.where.endswith(":61")


def test_degenerate_text_shows_in_the_statistics(tmp_path: Path) -> None:
    noise = base64.b64encode(random.Random(0).randbytes(300)).decode()
    sets = {"prose": PROSE, "line": ["a" * 200] * 4, "base64": [noise]}
    seen = {name: encode(tmp_path, texts, name=name)[1].statistics for name, texts in sets.items()}
    assert seen["line"].unigram_entropy_bits == 0.0
    assert seen["line"].longest_run == 200
    assert 3 < seen["prose"].unigram_entropy_bits < 5 < seen["base64"].unigram_entropy_bits
    assert seen["prose"].longest_run < 5


def test_zero_bytes_are_refused_or_counted(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "zeros.py").write_bytes(bytes(5000))
    with pytest.raises(Refusal) as refused:
        encode_corpus(
            [tmp_path / "src"],
            tokenizer=tokenizer(nothing),
            encoder="reference",
            output=tmp_path / "out",
        )
    assert refused.value.id == "corpus.empty"
    assert "1 binary" in refused.value.found
