"""Text to ids and back, with the document separator declared and never guessed.

Two encoders share one model. The full one knows the added tokens and only decodes. Documents
are encoded by the other, which was built without them: text that spells `<|endoftext|>` comes
out as ordinary pieces, so only the pipeline can put a control id into the data. Marking added
tokens as "special" is not enough for that: Qwen2.5 has eight that are not.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
import tokenizers
from numpy.typing import NDArray

from apr.errors import DamagedFile, Refusal
from apr.files import io_refusals, read_bytes, require_exists, sha256_bytes
from apr.tokenizer import directory as tokenizer_directory
from apr.tokenizer.checks import keep_checked, read_checked
from apr.tokenizer.definition import SIZE_LIMIT_BYTES, Definition, read_definition
from apr.tokenizer.directory import Declaration, Training
from apr.tokenizer.encoders import (
    FastEncoder,
    NotAllowed,
    ReferenceEncoder,
    fast_encoder,
    require_unicode,
)
from apr.tokenizer.library import (
    library_refusals,
    read_library_tokenizer,
    require_same_ids,
    without_added_tokens,
)
from apr.tokenizer.nfc import is_surely_nfc

_NAMED_CANDIDATES = 8
_AROUND = 16  # tokens shown on either side of a bad one
_UNICODE_FORMS = ("NFC", "NFD", "NFKC", "NFKD")  # all of them leave ASCII as it is
# The first byte of U+0300 in UTF-8. Below it there is no combining mark, and NFC changes nothing.
_FIRST_COMBINING_BYTE = 0xCC
_EXPORT = "apr export {model} --format hf -o DIR writes its tokenizer too; then name DIR"
# How each kind of model file begins, and where its tokenizer is to be had.
_TOKENIZER_OF_MODEL = {
    b"APR\0": (
        "an .apr file, which is a model",
        f"name the directory it was trained with; or: {_EXPORT}",
    ),
    b"GGUF": (
        "a GGUF file, which is a model",
        "import it first: apr import {model} -o model.apr; " + _EXPORT.format(model="model.apr"),
    ),
}


class Tokenizer:
    """A BPE tokenizer whose ids, separator and identity are known."""

    def __init__(
        self,
        definition: Definition,
        *,
        json_bytes: bytes,
        declaration: Declaration,
        where: str,
        is_checked: bool = False,
    ) -> None:
        """`is_checked`: the library's reading of these bytes was compared before."""
        self.where = where
        self.json_bytes = json_bytes
        self.definition = definition
        self.vocabulary: list[str] = definition.vocabulary
        self.declaration = declaration
        self.separator_candidates = _candidates(definition, declaration)
        self.eos_token: str | None = declaration.eos_token
        self.eos_token_id: int | None = self._declared_id(declaration.eos_token)
        self._is_control = self._control_ids()
        self._first_control_id = (
            int(np.argmax(self._is_control)) if self._is_control.any() else None
        )
        if not is_checked:
            require_same_ids(self._full, definition, where=where)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        eos_token: str | None = None,
        checked_sha256: str | None = None,
        cache_directory: Path | None = None,
    ) -> "Tokenizer":
        """Read a tokenizer directory (ours or Hugging Face's) or a bare tokenizer.json.

        `eos_token` declares the document separator, over what the directory's manifest says.
        A process that works for another names the `checked_sha256` of the tokenizer.json the
        other has loaded, and the separator: the files beside it are not read then, nor is the
        library's reading of it checked again. With a `cache_directory` the same bytes are not
        checked again in later runs either; the files beside them are.

        Refuses: files.not-found, tokenizer.damaged, tokenizer.not-bpe, tokenizer.dropout,
        tokenizer.vocab-gap, tokenizer.sibling-disagrees, tokenizer.eos-unknown.
        Writes: one file in `cache_directory`, where that is possible.
        """
        require_exists(path, "a tokenizer directory or a tokenizer.json")
        file = tokenizer_directory.require_tokenizer_json(path) if path.is_dir() else path
        _require_no_model(file)
        data = read_bytes(
            file, limit_bytes=SIZE_LIMIT_BYTES, id="tokenizer.damaged", what="a tokenizer.json"
        )
        json_sha256 = sha256_bytes(data)
        is_helper = checked_sha256 == json_sha256
        kept = None if is_helper else read_checked(cache_directory, json_sha256)
        is_checked = is_helper or kept is not None
        definition = read_definition(
            data,
            where=str(file),
            is_checked=is_checked,
            known_fingerprint=None if kept is None else kept.fingerprint,
        )
        declaration = Declaration()
        if path.is_dir() and not is_helper:
            declaration = tokenizer_directory.read_declaration(path, definition, json_bytes=data)
        loaded = cls(
            definition,
            json_bytes=data,
            declaration=declaration.with_eos_token(eos_token),
            where=str(file),
            is_checked=is_checked,
        )
        if not is_checked and cache_directory is not None:
            keep_checked(cache_directory, json_sha256, fingerprint=loaded.fingerprint)
        return loaded

    @classmethod
    def from_json_bytes(cls, data: bytes, *, eos_token: str | None, where: str) -> "Tokenizer":
        """The tokenizer that a tokenizer.json's bytes describe, as a container carries them.

        Refuses: as `load`.
        """
        return cls(
            read_definition(data, where=where),
            json_bytes=data,
            declaration=Declaration(eos_token=eos_token),
            where=where,
        )

    @property
    def vocab_size(self) -> int:
        """Largest id plus one, added tokens included."""
        return len(self.vocabulary)

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of everything that decides ids, and of nothing else."""
        return self.definition.fingerprint

    @property
    def training(self) -> Training | None:
        """What it was learned from, where apr learned it."""
        return self.declaration.training

    @property
    def merges(self) -> list[str]:
        """The merges in order, each as `left right`."""
        return self.definition.merges

    @cached_property
    def prefix_ids(self) -> list[int]:
        """What tokenizer.json puts before every text of a model, such as a beginning-of-text id.

        Documents of a corpus do not get it: only the declared separator stands between them.
        """
        with library_refusals(self.where):
            bare = self._full.encode("a", add_special_tokens=False).ids
            whole = self._full.encode("a", add_special_tokens=True).ids
        starts = (at for at in range(len(whole)) if whole[at : at + len(bare)] == bare)
        return whole[: next(starts, 0)]

    @cached_property
    def reference(self) -> ReferenceEncoder:
        """The encoder that is right by definition."""
        return ReferenceEncoder(without_added_tokens(self._full), where=self.where)

    @cached_property
    def fast(self) -> FastEncoder | NotAllowed:
        """The fast encoder, which nothing has compared with the reference yet.

        Whoever compares needs both, so the reference is built meanwhile.
        """
        return fast_encoder(self.definition, where=self.where, meanwhile=lambda: self.reference)

    @cached_property
    def _full(self) -> tokenizers.Tokenizer:
        return read_library_tokenizer(self.json_bytes, where=self.where)

    def require_eos_token_id(self) -> int:
        """The id of the document separator.

        Refuses: tokenizer.eos-undeclared.
        """
        if self.eos_token_id is not None:
            return self.eos_token_id
        raise Refusal(
            "tokenizer.eos-undeclared",
            self.where,
            found=f"no declared separator; candidates: {self.separator_candidates}",
            expected="the token that ends a document, declared",
            fix="name it with --eos-token TEXT",
        )

    def require_normalization(self, wanted: Literal["nfc", "none"]) -> None:
        """Refuse a tokenizer that does something else to text before it encodes it.

        Refuses: tokenizer.normalization-differs.
        """
        normalizer = self.definition.normalizer
        if normalizer == {"nfc": {"type": "NFC"}, "none": None}[wanted]:
            return
        raise Refusal(
            "tokenizer.normalization-differs",
            self.where,
            found="no normalizer" if normalizer is None else f"the normalizer {normalizer}",
            expected={"nfc": "the normalizer NFC", "none": "no normalizer"}[wanted],
            fix="leave --normalization out: text is normalized as the tokenizer says, and in no "
            "other way",
        )

    def encode(self, text: str) -> NDArray[np.uint32]:
        """Ids of one document's text; never a control id, and no separator is added.

        Refuses: tokenizer.lone-surrogate, tokenizer.control-id.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Ids of several documents, on all cores.

        Refuses: tokenizer.lone-surrogate, tokenizer.control-id, tokenizer.encoder-failed.
        """
        ids, offsets = self.reference.encode_flat(texts)
        self.require_no_control_id(ids)
        return [ids[start:stop] for start, stop in pairwise(offsets.tolist())]

    def require_no_control_id(self, ids: NDArray[np.uint32]) -> None:
        """Refuse ids of documents that no text may have, whichever encoder made them.

        Refuses: tokenizer.control-id, tokenizer.id-range.
        """
        largest = int(ids.max(initial=0))
        if largest >= self.vocab_size:
            self._refuse_id(largest)
        # Control ids are nearly always the last ones, and the maximum says enough.
        if self._first_control_id is None or largest < self._first_control_id:
            return
        found = np.flatnonzero(self._is_control[ids])
        if not found.size:
            return
        at, control_id = int(found[0]), int(ids[found[0]])
        around = self.decode(ids[max(0, at - _AROUND) : at + _AROUND])
        raise Refusal(
            "tokenizer.control-id",
            self.where,
            found=f"{self.vocabulary[control_id]!r} (id {control_id}) out of text {around!r}",
            expected="text that yields no control id",
            fix="this tokenizer spells a control token with ordinary pieces; use another one",
        )

    def decode(self, token_ids: Sequence[int] | NDArray[np.integer]) -> str:
        """The text that ids stand for, control tokens included.

        Refuses: tokenizer.id-range.
        """
        ids = np.asarray(token_ids, dtype=np.int64)
        if ids.size and not (ids.min() >= 0 and ids.max() < self.vocab_size):
            self._refuse_id(int(ids.max() if ids.max() >= self.vocab_size else ids.min()))
        with library_refusals(self.where):
            return self._full.decode(ids.tolist(), skip_special_tokens=False)

    def normalize(self, text: str) -> str:
        """The text as the model sees it, after the tokenizer's own normalizer."""
        normalizer = self._full.normalizer
        kind = (self.definition.normalizer or {}).get("type")
        if normalizer is None or (kind in _UNICODE_FORMS and text.isascii()):
            return text
        require_unicode([text], where=self.where)
        with library_refusals(self.where):
            return normalizer.normalize_str(text)

    def normalized_bytes(self, text: str, data: bytes) -> bytes:
        """The text as the model sees it, in UTF-8; `data` is the text in UTF-8.

        `data` itself where a look at its bytes shows that the normalizer changes nothing.
        """
        normalizer = self.definition.normalizer
        if normalizer is None:
            return data
        if normalizer.get("type") == "NFC":
            largest = np.frombuffer(data, dtype=np.uint8).max(initial=0)
            if largest < _FIRST_COMBINING_BYTE or is_surely_nfc(text):
                return data
        return self.normalize(text).encode("utf-8")

    def save(self, directory: Path, *, overwrite: bool = False) -> None:
        """Write a tokenizer directory that apr and Hugging Face libraries read.

        Refuses: tokenizer.merge-not-a-line, files.exists, files.foreign-content, files.io-failed.
        Writes: tokenizer.json, tokenizer_config.json, vocab.json, merges.txt, manifest.json.
        """
        tokenizer_directory.write_directory(
            directory,
            self.definition,
            json_bytes=self.json_bytes,
            declaration=self.declaration,
            overwrite=overwrite,
        )

    def _declared_id(self, eos_token: str | None) -> int | None:
        if eos_token is None:
            return None
        for token in self.definition.added_tokens:
            if token.content == eos_token:
                return token.id
        # An ordinary piece that looks like a control token (Qwen's `</s>`) separates nothing:
        # corpus text may hold it.
        ordinary = eos_token in self.definition.vocab
        raise Refusal(
            "tokenizer.eos-unknown",
            self.where,
            found=f"{eos_token!r}, "
            + ("an ordinary piece of text" if ordinary else "which is not one token"),
            expected=f"one of the tokenizer's control tokens: {self.separator_candidates}",
            fix="declare one of them with --eos-token TEXT",
        )

    def _control_ids(self) -> NDArray[np.bool_]:
        is_control = np.zeros(self.vocab_size, dtype=np.bool_)
        for token in self.definition.added_tokens:
            # The unknown token stands for text; how often it does is counted elsewhere.
            is_control[token.id] = token.content != self.definition.unk_token
        if self.eos_token_id is not None:
            is_control[self.eos_token_id] = True
        return is_control

    def _refuse_id(self, id: int) -> NoReturn:
        raise Refusal(
            "tokenizer.id-range",
            self.where,
            found=f"id {id}",
            expected=f"0 to {self.vocab_size - 1}",
            fix="use the tokenizer that made these ids",
        )


def _require_no_model(file: Path) -> None:
    """Refuse a model file, which may carry a tokenizer and is none."""
    # A named pipe would block on opening, for ever; reading refuses it.
    if not file.is_file():
        return
    with io_refusals(file), file.open("rb") as source:
        start = source.read(max(map(len, _TOKENIZER_OF_MODEL)))
    for magic, (what, fix) in _TOKENIZER_OF_MODEL.items():
        if start.startswith(magic):
            raise DamagedFile(
                "tokenizer.damaged",
                file,
                found=what,
                expected="a tokenizer directory or a tokenizer.json",
                fix=fix.format(model=file),
            )


def _candidates(definition: Definition, declaration: Declaration) -> str:
    special = [token.content for token in definition.added_tokens if token.special]
    text = ", ".join(special[:_NAMED_CANDIDATES]) or "none"
    if len(special) > _NAMED_CANDIDATES:
        text += f" and {len(special) - _NAMED_CANDIDATES} more"
    if declaration.config_eos_token is not None:
        text += f" (tokenizer_config.json names {declaration.config_eos_token} as its eos_token)"
    return text
