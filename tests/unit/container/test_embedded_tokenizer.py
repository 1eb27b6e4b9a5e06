"""A tokenizer goes into a container and comes back to the byte, or not at all."""

import base64
import json
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.container_files import build, f32
from tests.container_models import model_file

from apr.container import layout
from apr.container.embedded_tokenizer import embed_tokenizer, restore_tokenizer
from apr.container.inspecting.inspection import describe
from apr.container.inspecting.validation import Check, validate
from apr.container.named_keys import Metadata
from apr.container.reader import Container
from apr.errors import Refusal
from apr.tokenizer.definition import SIZE_LIMIT_BYTES
from apr.tokenizer.tokenizer import Tokenizer

DEFINITION: dict[str, Any] = {
    "version": "1.0",
    "added_tokens": [
        {
            "id": 3,
            "content": "<|endoftext|>",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
    ],
    "normalizer": None,
    "pre_tokenizer": None,
    "post_processor": None,
    "decoder": None,
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
}
# Indented, to show that bytes come back and not only content.
JSON_BYTES = json.dumps(DEFINITION, indent=1).encode()


def tokenizer(eos_token: str | None = "<|endoftext|>") -> Tokenizer:
    return Tokenizer.from_json_bytes(JSON_BYTES, eos_token=eos_token, where="tokenizer.json")


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


def keys(**changes: Any) -> dict[str, Any]:
    found = embed_tokenizer(tokenizer())
    for key, value in changes.items():
        name = next(known for known in found if known.rpartition(".")[2] == key)
        if value is None:
            del found[name]
        else:
            found[name] = value
    return found


def restored(free: dict[str, Any]) -> Tokenizer | None:
    return restore_tokenizer(Metadata().with_free(free), where="x.apr")


def refusal_of(free: dict[str, Any]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        restored(free)
    assert "x.apr" in caught.value.where
    return caught.value


def test_the_keys_that_the_rust_tools_read() -> None:
    found = embed_tokenizer(tokenizer())
    assert {key: value for key, value in found.items() if key.startswith("tokenizer.")} == {
        "tokenizer.vocabulary": ["a", "b", "ab", "<|endoftext|>"],
        "tokenizer.vocab_size": 4,
        "tokenizer.merges": ["a b"],
        "tokenizer.model_type": "BPE",
        "tokenizer.eos_token_id": 3,
    }


@pytest.mark.parametrize("eos_token", ["<|endoftext|>", None])
def test_the_exact_bytes_come_back(tmp_path: Path, eos_token: str | None) -> None:
    file = model_file(free=embed_tokenizer(tokenizer(eos_token)))
    with Container.open(file.write(tmp_path / "x.apr")) as container:
        assert container.sections.header.flags & layout.HAS_VOCAB
        found = restore_tokenizer(container.metadata, where=container.path)
    assert found is not None
    assert found.json_bytes == JSON_BYTES
    assert found.fingerprint == tokenizer().fingerprint
    assert found.eos_token == eos_token
    assert found.encode("abba").tolist() == [2, 1, 0]


def test_a_container_without_a_tokenizer() -> None:
    assert restored({}) is None


def test_a_vocabulary_alone_is_not_enough() -> None:
    refusal = refusal_of({"tokenizer.vocabulary": ["a"], "tokenizer.merges": []})
    assert (refusal.id, refusal.exit_code) == ("container.tokenizer-inexact", 5)


@pytest.mark.parametrize(
    ("changes", "id"),
    [
        ({"vocabulary": ["b", "a", "ab", "<|endoftext|>"]}, "container.tokenizer-mismatch"),
        ({"vocabulary": ["a", "b", "ab"]}, "container.tokenizer-mismatch"),
        ({"vocabulary": "a"}, "container.tokenizer-mismatch"),
        ({"vocab_size": 5}, "container.tokenizer-mismatch"),
        ({"merges": []}, "container.tokenizer-mismatch"),
        ({"merges": None}, "container.tokenizer-mismatch"),
        ({"model_type": "unigram"}, "container.tokenizer-mismatch"),
        ({"eos_token_id": 2}, "container.tokenizer-mismatch"),
        ({"eos_token_id": None}, "container.tokenizer-mismatch"),
        # The id without the declaration it came from.
        ({"eos_token": None}, "container.tokenizer-mismatch"),
        ({"tokenizer_fingerprint": "0" * 64}, "container.tokenizer-mismatch"),
        ({"tokenizer_fingerprint": None}, "container.tokenizer-mismatch"),
        ({"eos_token": "ab"}, "tokenizer.eos-unknown"),
        ({"eos_token": 7}, "container.tokenizer-damaged"),
        ({"tokenizer_json_zlib": 7}, "container.tokenizer-damaged"),
        ({"tokenizer_json_zlib": "not base64!"}, "container.tokenizer-damaged"),
        ({"tokenizer_json_zlib": "!" + packed(JSON_BYTES)}, "container.tokenizer-damaged"),
        ({"tokenizer_json_zlib": "\N{SNOWMAN}"}, "container.tokenizer-damaged"),
        ({"tokenizer_json_zlib": ""}, "container.tokenizer-damaged"),
        ({"tokenizer_json_zlib": base64.b64encode(b"x").decode()}, "container.tokenizer-damaged"),
        ({"tokenizer_json_zlib": packed(JSON_BYTES)[:-8]}, "container.tokenizer-damaged"),
        ({"tokenizer_json_zlib": packed(b"{}")}, "tokenizer.damaged"),
        (
            {"tokenizer_json_zlib": packed(JSON_BYTES.replace(b"a b", b"b a"))},
            "tokenizer.damaged",
        ),
    ],
)
def test_two_descriptions_that_differ(tmp_path: Path, changes: dict[str, Any], id: str) -> None:
    refusal = refusal_of(keys(**changes))
    assert (refusal.id, refusal.exit_code) in ((id, 4), (id, 5))
    path = tmp_path / "x.apr"
    path.write_bytes(build(keys(**changes), [f32("w", 1.0)]))
    assert validate(path).verdict == "FAIL"


def test_other_tokenizer_behind_the_same_vocabulary() -> None:
    # Same pieces, same merges, other ids for the same text: only the fingerprint can tell.
    other = JSON_BYTES.replace(b'"normalizer": null', b'"normalizer": {"type": "NFC"}')
    assert other != JSON_BYTES
    refusal = refusal_of(keys(tokenizer_json_zlib=packed(other)))
    assert refusal.id == "container.tokenizer-mismatch"
    assert "fingerprint" in refusal.where


def test_bytes_behind_the_stream() -> None:
    stream = zlib.compress(JSON_BYTES) + b"more"
    free = keys(tokenizer_json_zlib=base64.b64encode(stream).decode())
    assert refusal_of(free).id == "container.tokenizer-damaged"


def test_a_stream_that_unpacks_without_end() -> None:
    free = keys(tokenizer_json_zlib=packed(bytes(3 * SIZE_LIMIT_BYTES)))
    assert len(free["apr.tokenizer_json_zlib"]) < SIZE_LIMIT_BYTES // 100
    tracemalloc.start()
    try:
        refusal = refusal_of(free)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refusal.id == "container.tokenizer-damaged"
    assert str(SIZE_LIMIT_BYTES) in refusal.found
    # Twice the limit is what joining the pieces of one stopped stream takes.
    assert peak_bytes < 2.5 * SIZE_LIMIT_BYTES


def tokenizer_check(path: Path, free: dict[str, Any], flags: int = 0x400) -> Check | None:
    path.write_bytes(build(free, [f32("w", 1.0)], flags=flags))
    found = [check for check in validate(path).checks if check.id == "container.tokenizer"]
    return found[0] if found else None


def drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda free: free.pop(key)


def replace(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda free: free.update({key: value})


FOREIGN = {
    "tokenizer.vocabulary": ["a", "b", "ab"],
    "tokenizer.vocab_size": 3,
    "tokenizer.merges": ["a b"],
    "tokenizer.eos_token_id": 2,
}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (drop("tokenizer.vocabulary"), "no list of texts"),
        (replace("tokenizer.vocabulary", []), "no list of texts"),
        (replace("tokenizer.vocabulary", ["a", None, "ab"]), "no list of texts"),
        # A gap: the ids behind it are one too small.
        (replace("tokenizer.vocabulary", ["a", "ab"]), "2 tokens listed"),
        (replace("tokenizer.vocabulary", ["a", "a", "ab"]), "listed twice"),
        (replace("vocab_size", 2), "2 rows of the embedding"),
        (replace("tokenizer.eos_token_id", 3), "eos_token_id=3"),
        (replace("tokenizer.eos_token_id", -1), "eos_token_id=-1"),
        (replace("tokenizer.eos_token_id", True), "eos_token_id=True"),
        (replace("tokenizer.merges", ["ab"]), "pairs of texts"),
        (replace("tokenizer.merges", {"a b": 1}), "pairs of texts"),
    ],
)
def test_a_foreign_vocabulary_that_is_unusable(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], found: str
) -> None:
    sound = tokenizer_check(tmp_path / "x.apr", FOREIGN)
    assert sound is not None
    assert (sound.verdict, sound.found) == ("PASS", "3 tokens, without a tokenizer.json")
    free: dict[str, Any] = dict(FOREIGN)
    change(free)
    check = tokenizer_check(tmp_path / "x.apr", free)
    assert check is not None
    assert check.verdict == "FAIL"
    assert found in check.found


def test_a_flag_that_promises_a_vocabulary(tmp_path: Path) -> None:
    assert tokenizer_check(tmp_path / "x.apr", {}) is None
    check = tokenizer_check(tmp_path / "x.apr", {}, flags=0x600)
    assert check is not None
    assert check.verdict == "FAIL"


def test_a_real_tokenizer(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "tokenizers" / "gpt2" / "tokenizer.json"
    original = Tokenizer.load(path, eos_token="<|endoftext|>")
    target = model_file(free=embed_tokenizer(original)).write(tmp_path / "x.apr")
    assert describe(target)["tokenizer"] == {
        "model_type": "BPE",
        "vocab_size": 50_257,
        "num_merges": 50_000,
        "eos_token": "<|endoftext|>",
        "eos_token_id": 50_256,
        "fingerprint": original.fingerprint,
        "has_tokenizer_json": True,
    }
    with Container.open(target) as container:
        found = restore_tokenizer(container.metadata, where=target)
    assert found is not None
    assert found.json_bytes == path.read_bytes()
