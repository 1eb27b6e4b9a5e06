"""Tokenizers on which encoders part ways, and encoders that are wrong on purpose."""

from typing import Any

import numpy as np
from tests.tokenizer_files import BYTE_LEVEL, Change, set_in, tokenizer

from apr.tokenizer.encoders import FastEncoder, FlatIds, ReferenceEncoder, build_fast_encoder
from apr.tokenizer.tokenizer import Tokenizer

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
WORDS = BYTE_LEVEL | {"use_regex": True}
BYTES = BYTE_LEVEL | {"use_regex": False}
DIGITS = {"type": "Digits", "individual_digits": True}
# Merges across the places where words are cut: a cut in the wrong place changes ids.
PIECES = ("th", "the", "Ġthe", ".the", "ĠĠ", "12", "123", "in", "ing", "'s", "ĊĊ", "e.", "lo")


def split(pattern: str, behavior: str = "Isolated") -> dict[str, Any]:
    regex = {"Regex": pattern}
    return {"type": "Split", "pattern": regex, "behavior": behavior, "invert": False}


def sequence(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(parts)}


def cut_by(pre_tokenizer: dict[str, Any] | None, *more: Change) -> Tokenizer:
    """A small tokenizer that cuts text in this way."""

    def change(value: dict[str, Any]) -> None:
        value["pre_tokenizer"] = pre_tokenizer
        for each in more:
            each(value)

    return tokenizer(change, words=PIECES)


def unlisted(used: Tokenizer) -> FastEncoder:
    """The real fast encoder for a tokenizer that need not be on the list of known shapes."""
    return build_fast_encoder(used.definition, where=used.where)


class WrongLibrary:
    """A fast library that is the reference, but in texts with `marker` two ids change places."""

    def __init__(self, reference: ReferenceEncoder, *, ids: tuple[int, int], marker: str) -> None:
        self._reference = reference
        self._ids = ids
        self._marker = marker

    def encode_batch_flat(self, texts: list[str]) -> tuple[bytes, bytes]:
        ids, offsets = self._reference.encode_flat(texts)
        left, right = self._ids
        for index, text in enumerate(texts):
            if self._marker in text:
                part = ids[int(offsets[index]) : int(offsets[index + 1])]
                was_left, was_right = part == left, part == right
                part[was_left], part[was_right] = right, left
        return ids.tobytes(), offsets.tobytes()


class TruncatingLibrary:
    """A fast library that drops the last id of every batch, and says so in its offsets."""

    def __init__(self, reference: ReferenceEncoder) -> None:
        self._reference = reference

    def encode_batch_flat(self, texts: list[str]) -> tuple[bytes, bytes]:
        ids, offsets = self._reference.encode_flat(texts)
        offsets[-1] -= 1
        return ids[:-1].tobytes(), offsets.tobytes()


def wrong(
    used: Tokenizer, *, pieces: tuple[str, str] = ("a", "b"), marker: str = ""
) -> FastEncoder:
    ids = (used.definition.ids[pieces[0]], used.definition.ids[pieces[1]])
    library = WrongLibrary(used.reference, ids=ids, marker=marker)
    return FastEncoder(library, version="0.0.wrong", where=used.where)


class OtherUnicode:
    """The reference with another idea of what a letter is, as a newer Unicode has one."""

    name, version = "other-unicode", "0"

    def __init__(self, used: Tokenizer, *, new_letter: str) -> None:
        pattern = LLAMA3.replace(r"]?\p{L}+", rf"]?[\p{{L}}{new_letter}]+")
        letters = split(pattern.replace(r"\r\n\p{L}", rf"\r\n\p{{L}}{new_letter}"))
        change = set_in("normalizer", to=used.definition.normalizer)
        self._encoder = cut_by(sequence(letters, BYTES), change).reference

    def encode_flat(self, texts: list[str]) -> FlatIds:
        return self._encoder.encode_flat(texts)


def same(left: FlatIds, right: FlatIds) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(left, right, strict=True))
