"""BPE with byte fallback as scores, against an encoder written after llama.cpp's."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import tokenizer_files
from tests.reference_data import reference
from tests.sentencepiece_reference import encode
from tests.tokenizer_files import control_token, set_in

from apr.convert.gguf import vocabulary
from apr.convert.gguf.metadata import Metadata
from apr.convert.gguf.tokenizer import Exported, tokenizer_fields
from apr.convert.gguf.vocabulary import read_vocabulary
from apr.errors import Refusal
from apr.tokenizer.tokenizer import Tokenizer


def exported(tokenizer: Tokenizer, *, rows: int = 0, **config: Any) -> Exported:
    return tokenizer_fields(tokenizer, config, vocab_size=max(rows, tokenizer.vocab_size))


def values(found: Exported) -> dict[str, Any]:
    return {field.key.removeprefix("tokenizer."): field.value for field in found.fields}


def read_back(found: Exported, rows: int, *, without: str = "") -> vocabulary.Vocabulary:
    fields = {field.key: field for field in found.fields if field.key != without}
    return read_vocabulary(Metadata(fields, where="model.gguf"), vocab_size=rows)


@pytest.fixture(scope="module")
def stories(shared_data: Path) -> Tokenizer:
    path = reference(shared_data, "checkpoints/stories260K/hf/tokenizer.json")
    return Tokenizer.load(path, eos_token="</s>")


def sample_texts() -> list[str]:
    source = random.Random(7)
    words = ["Once", "upon", "a", "time", "little", "Lily", "liked", "play;", "\u201cno!\u201d"]
    texts = [" ".join(source.choices(words, k=source.randint(1, 12))) for _ in range(200)]
    letters = "aabbeeht  \n\u2581\u00e9\u4e2d\U0001f600<>/s0x41"
    texts += ["".join(source.choices(letters, k=source.randint(1, 40))) for _ in range(300)]
    return ["", " ", "  ", "a" * 40, " " * 17, "<s>", "<0x41>", "</s> x", *texts]


def test_scores_make_llama_cpp_merge_as_the_merges_do(stories: Tokenizer) -> None:
    found = values(exported(stories, rows=520, bos_token_id=1, eos_token_id=2))
    assert (found["ggml.model"], found["ggml.pre"]) == ("llama", "default")
    assert (found["ggml.add_space_prefix"], found["ggml.add_bos_token"]) == (True, True)
    assert found["ggml.token_type"].tolist()[:4] == [2, 3, 3, 6]
    assert len(found["ggml.scores"]) == len(found["ggml.tokens"]) == 520
    scores = found["ggml.scores"].tolist()
    for text in sample_texts():
        ids = encode(text, found["ggml.tokens"], scores, add_space_prefix=True)
        assert ids == stories.encode(text).tolist(), text


def test_other_scores_would_not(stories: Tokenizer) -> None:
    """The planted fault: scores that do not follow the merges."""
    found = values(exported(stories, eos_token_id=2))
    scores = np.asarray(found["ggml.scores"])[::-1].tolist()
    assert any(
        encode(text, found["ggml.tokens"], scores, add_space_prefix=True)
        != stories.encode(text).tolist()
        for text in sample_texts()
    )


def with_fallback(change: Callable[[dict[str, Any]], object]) -> Tokenizer:
    """A small BPE with byte fallback: the bytes, some letters, some merges."""
    vocab = {"<unk>": 0, "</s>": 1, **{f"<0x{byte:02X}>": byte + 2 for byte in range(256)}}
    for piece in ("\u2581", "a", "b", "c", "ab", "abc", "\u2581a"):
        vocab[piece] = len(vocab)
    document: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [control_token("<unk>", 0), control_token("</s>", 1)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "\u2581"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocab,
            "merges": [["a", "b"], ["ab", "c"], ["\u2581", "a"]],
        },
    }
    change(document)
    data = json.dumps(document).encode()
    return Tokenizer.from_json_bytes(data, eos_token="</s>", where="small.json")


def add_piece(piece: str, *merges: tuple[str, str]) -> Callable[[dict[str, Any]], object]:
    def change(value: dict[str, Any]) -> None:
        vocab = value["model"]["vocab"]
        vocab[piece] = len(vocab)
        value["model"]["merges"] += [list(pair) for pair in merges]

    return change


def test_the_small_one_is_sound_and_may_leave_the_prefix_out() -> None:
    found = values(exported(with_fallback(tokenizer_files.nothing)))
    for text in ("abc", "ab c", "ca bb", "aabbcc", "\u00e9"):
        ids = encode(text, found["ggml.tokens"], found["ggml.scores"], add_space_prefix=True)
        assert ids == with_fallback(tokenizer_files.nothing).encode(text).tolist()
    replace_only = with_fallback(
        lambda value: value.update(normalizer=value["normalizer"]["normalizers"][1])
    )
    assert values(exported(replace_only))["ggml.add_space_prefix"] is False


@pytest.mark.parametrize(
    ("id", "change"),
    [
        # "bc" makes a second way to make "abc", which is no merge.
        ("gguf.merges-not-expressible", add_piece("bc", ("b", "c"))),
        # The merges of "ca" stand apart.
        (
            "gguf.merges-not-expressible",
            lambda value: (
                add_piece("bca", ("b", "ca"))(value),
                add_piece("ca", ("c", "a"))(value),
                add_piece("bc")(value),
                value["model"]["merges"].append(["bc", "a"]),
            ),
        ),
        ("gguf.merges-not-expressible", add_piece("a<0x41>", ("a", "<0x41>"))),
        ("gguf.merges-not-expressible", set_in("model", "ignore_merges", to=True)),
        # Text could spell the control token out of two pieces.
        (
            "gguf.merges-not-expressible",
            lambda value: (add_piece("</s")(value), add_piece(">")(value)),
        ),
        ("gguf.merges-not-expressible", lambda value: (
            value["model"]["vocab"].update({"zz": value["model"]["vocab"].pop("<0x07>")})
        )),
        ("gguf.tokenizer-unsupported", set_in("normalizer", to=None)),
        ("gguf.tokenizer-unsupported", set_in("normalizer", to={"type": "NFKC"})),
        ("gguf.tokenizer-unsupported", set_in("pre_tokenizer", to={
            "type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False,
        })),
    ],
)  # fmt: skip
def test_merges_that_scores_cannot_say_are_refused(
    id: str, change: Callable[[dict[str, Any]], object]
) -> None:
    with pytest.raises(Refusal) as caught:
        exported(with_fallback(change))
    assert caught.value.id == id


def test_a_sentencepiece_file_without_its_json_gives_no_tokenizer(stories: Tokenizer) -> None:
    found = exported(stories, eos_token_id=2)
    assert read_back(found, stories.vocab_size).tokenizer
    without = read_back(found, stories.vocab_size, without=vocabulary.HF_JSON)
    assert without.tokenizer is None
    assert "--tokenizer" in without.notes[0]
