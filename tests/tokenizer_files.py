"""Tokenizers made by hand, small enough to read, sound and damaged."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers

from apr.tokenizer.tokenizer import Tokenizer

EOS = "<|endoftext|>"
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
Change = Callable[[dict[str, Any]], object]


def nothing(_value: dict[str, Any]) -> None:
    """The change that changes nothing."""


def control_token(content: str, id: int, *, special: bool = True) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": id, "content": content, **flags, "special": special}


def document(
    *,
    words: tuple[str, ...] = ("he", "hel", "Ġhe"),
    control: tuple[str, ...] = (EOS,),
    special: bool = True,
) -> dict[str, Any]:
    """A byte-level tokenizer.json: all bytes, these words, then the control tokens."""
    vocab = {piece: id for id, piece in enumerate([*ALPHABET, *words])}
    added = [
        control_token(text, len(vocab) + index, special=special)
        for index, text in enumerate(control)
    ]
    merges = [f"{word[:-1]} {word[-1]}" for word in words if word[:-1] in vocab]
    merges += [f"{word[0]} {word[1:]}" for word in words if word[:-1] not in vocab]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": dict(BYTE_LEVEL),
        "post_processor": None,
        "decoder": dict(BYTE_LEVEL),
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }


def changed(change: Change, **options: Any) -> bytes:
    """The small tokenizer.json with one thing changed."""
    value = copy.deepcopy(document(**options))
    change(value)
    return json.dumps(value).encode()


def tokenizer(change: Change = nothing, *, eos: str | None = EOS, **options: Any) -> Tokenizer:
    return Tokenizer.from_json_bytes(changed(change, **options), eos_token=eos, where="small.json")


def write(directory: Path, change: Change = nothing, **options: Any) -> Path:
    """A directory with nothing but the small tokenizer.json."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_bytes(changed(change, **options))
    return directory


def set_in(*path: str | int, to: Any) -> Change:
    """A change that sets one value; the path is made of keys and indexes."""

    def change(value: Any) -> None:
        for step in path[:-1]:
            value = value[step]
        value[path[-1]] = to

    return change


def without(*path: str | int) -> Change:
    """A change that removes one value."""

    def change(value: Any) -> None:
        for step in path[:-1]:
            value = value[step]
        del value[path[-1]]

    return change


def swapped(left: str, right: str) -> Change:
    """A change that gives two pieces each other's id."""

    def change(value: dict[str, Any]) -> None:
        vocab = value["model"]["vocab"]
        vocab[left], vocab[right] = vocab[right], vocab[left]

    return change
