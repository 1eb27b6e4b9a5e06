"""Text to ids in two ways: the reference, and a fast encoder that must be proven equal to it.

Both are built without the added tokens, so no text yields a control id, and both return one
flat buffer of ids with offsets. The fast one is some sixty times as fast, and mis-encodes
without an error some of the tokenizers it accepts: nothing is encoded with it before
`apr.tokenizer.choice` has compared the two.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from threading import Event
from typing import Any, Literal, Protocol

import numpy as np
import orjson
import tokenizers
from numpy.typing import NDArray

from apr.errors import Refusal
from apr.tokenizer.allowed import why_not_allowed
from apr.tokenizer.definition import Definition
from apr.tokenizer.fresh_threads import FORGET_AFTER_CHARACTERS, FreshThreads
from apr.tokenizer.library import first_line, is_library_error, library_refusals

FlatIds = tuple[NDArray[np.uint32], NDArray[np.uint64]]
"""Ids of all texts in a row, and where each text's begin; one offset more than texts."""


class Encoder(Protocol):
    """What turns documents into ids."""

    name: str
    version: str

    def encode_flat(self, texts: Sequence[str]) -> FlatIds:
        """Ids of several documents, without separators."""
        ...


class ReferenceEncoder:
    """Hugging Face's encoder: what it says is right."""

    name = "tokenizers"
    version: str = tokenizers.__version__

    def __init__(self, documents: tokenizers.Tokenizer, *, where: str) -> None:
        """`documents` knows no added tokens."""
        self._documents = documents
        self._where = where

    def encode_flat(self, texts: Sequence[str]) -> FlatIds:
        """Ids of several documents, without separators.

        Refuses: tokenizer.lone-surrogate, tokenizer.encoder-failed.
        """
        try:
            encodings = self._documents.encode_batch_fast(list(texts), add_special_tokens=False)
        except BaseException as err:
            if is_library_error(err):
                require_unicode(texts, where=self._where)
            with library_refusals(self._where):
                raise
        offsets = np.zeros(len(encodings) + 1, dtype=np.uint64)
        np.cumsum([len(encoding) for encoding in encodings], out=offsets[1:])
        ids = np.empty(int(offsets[-1]), dtype=np.uint32)
        for encoding, start, stop in zip(encodings, offsets[:-1], offsets[1:], strict=True):
            ids[start:stop] = encoding.ids
        return ids, offsets


class FastEncoder:
    """The fastokens encoder for one tokenizer; equal to the reference only where proven."""

    name = "fastokens"

    def __init__(
        self,
        library: Any,
        *,
        version: str,
        where: str,
        forget_after_characters: float = FORGET_AFTER_CHARACTERS,
    ) -> None:
        """After `forget_after_characters` of text the library forgets the words it has met."""
        self.version = version
        self._library = library
        self._where = where
        self._threads = FreshThreads(forget_after_characters=forget_after_characters)

    def encode_flat(self, texts: Sequence[str]) -> FlatIds:
        """Ids of several documents, without separators.

        Refuses: tokenizer.lone-surrogate, tokenizer.fast-encoder-failed.
        """
        try:
            ids, offsets = self._threads.call(self._library.encode_batch_flat, list(texts))
        except BaseException as err:
            if not is_library_error(err):
                raise
            require_unicode(texts, where=self._where)
            raise Refusal(
                "tokenizer.fast-encoder-failed",
                self._where,
                found=f"{self.name} {self.version}: {first_line(err)}",
                expected="ids",
                fix="encode with the reference encoder",
            ) from err
        return np.frombuffer(ids, dtype=np.uint32), np.frombuffer(offsets, dtype=np.uint64)


@dataclass(frozen=True)
class NotAllowed:
    """Why the fast encoder is not even tried."""

    verdict: Literal["not-allowed", "not-installed"]
    reason: str


def fast_encoder(
    definition: Definition, *, where: str, meanwhile: Callable[[], object] = lambda: None
) -> FastEncoder | NotAllowed:
    """The fast encoder of a tokenizer whose every component is on the list of known shapes.

    It is not proven yet; that is `apr.tokenizer.choice.choose_encoder`. While the library builds
    it, `meanwhile` is called.
    """
    reason = why_not_allowed(definition)
    if reason is not None:
        return NotAllowed("not-allowed", reason)
    try:
        return build_fast_encoder(definition, where=where, meanwhile=meanwhile)
    except (ImportError, PackageNotFoundError):
        return NotAllowed("not-installed", f"{FastEncoder.name} is not installed")
    except Refusal as refusal:
        if refusal.id != "tokenizer.fast-encoder-failed":
            raise
        return NotAllowed("not-allowed", refusal.found)


def installed_version() -> str | None:
    """The version of the fast encoder on this machine, None where it is not installed."""
    try:
        return version(FastEncoder.name)
    except PackageNotFoundError:
        return None


def build_fast_encoder(
    definition: Definition,
    *,
    where: str,
    meanwhile: Callable[[], object] = lambda: None,
    forget_after_characters: float = FORGET_AFTER_CHARACTERS,
) -> FastEncoder:
    """The fast encoder of any tokenizer, with no regard to the list of known shapes.

    After so many characters of text it forgets the words that it has met. `meanwhile` is called
    while the library builds, for which it needs a core and not the interpreter.

    Refuses: tokenizer.fast-encoder-failed, and what `meanwhile` refuses.
    """
    library = import_module("fastokens")
    document = _documents_json(definition)
    with ThreadPoolExecutor(1) as thread:
        begun = Event()
        building = thread.submit(_build, library, document, begun)
        # The other library keeps the interpreter to itself: it must not come first.
        begun.wait()
        meanwhile()
    try:
        built = building.result()
    except BaseException as err:
        if not is_library_error(err):
            raise
        raise Refusal(
            "tokenizer.fast-encoder-failed",
            where,
            found=f"fastokens cannot build it: {first_line(err)}",
            expected="a tokenizer that fastokens reads",
            fix="encode with the reference encoder",
        ) from err
    return FastEncoder(
        built,
        version=version("fastokens"),
        where=where,
        forget_after_characters=forget_after_characters,
    )


def _build(library: Any, document: str, begun: Event) -> Any:
    begun.set()
    built = library.Tokenizer.from_json_str(document)
    try:
        # The first text makes tables that all threads use, and processes that are forked.
        built.encode_batch_flat(["x"])
    except BaseException as err:
        if not is_library_error(err):
            raise
    return built


def first_difference(left: NDArray[Any], right: NDArray[Any]) -> int | None:
    """Where two sequences of ids first differ; the shorter length when one begins the other."""
    shorter = min(len(left), len(right))
    unequal = np.flatnonzero(left[:shorter] != right[:shorter])
    if unequal.size:
        return int(unequal[0])
    return None if len(left) == len(right) else shorter


def require_unicode(texts: Sequence[str], *, where: str) -> None:
    """Refuse a text that has no UTF-8 form, which is why an encoder failed.

    Refuses: tokenizer.lone-surrogate.
    """
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as err:
            raise Refusal(
                "tokenizer.lone-surrogate",
                where,
                found=f"a lone surrogate at character {err.start} of a text",
                expected="text that has a UTF-8 form",
                fix="repair the encoding of the document",
            ) from err


def _documents_json(definition: Definition) -> str:
    """A tokenizer.json of what was checked: no added token, nothing that cuts, pads or decodes."""
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": definition.unk_token,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": definition.byte_fallback,
        "ignore_merges": definition.ignore_merges,
        "vocab": definition.vocab,
        # As strings they are read a quarter faster than as pairs.
        "merges": definition.merges,
    }
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": definition.normalizer,
        "pre_tokenizer": definition.pre_tokenizer,
        "post_processor": None,
        "decoder": None,
        "model": model,
    }
    return orjson.dumps(document).decode("utf-8")
