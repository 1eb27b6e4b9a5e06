"""Text to ids and back, with the document separator declared and never guessed.

Two encoders share one model. The full one knows the added tokens and only decodes. Documents
are encoded by the other, which was built without them: text that spells `<|endoftext|>` comes
out as ordinary pieces, so only the pipeline can put a control id into the data. Marking added
tokens as "special" is not enough for that: Qwen2.5 has eight that are not.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray

from apr.errors import DamagedFile, Refusal
from apr.files import read_bytes, require_exists
from apr.tokenizer import directory as tokenizer_directory
from apr.tokenizer.definition import SIZE_LIMIT_BYTES, Definition, read_definition
from apr.tokenizer.directory import Declaration, Training

_NAMED_CANDIDATES = 8
_UNICODE_FORMS = ("NFC", "NFD", "NFKC", "NFKD")  # all of them leave ASCII as it is


class Tokenizer:
    """A BPE tokenizer whose ids, separator and identity are known."""

    def __init__(
        self, definition: Definition, *, json_bytes: bytes, declaration: Declaration, where: str
    ) -> None:
        self.where = where
        self.json_bytes = json_bytes
        self.definition = definition
        self.vocabulary: list[str] = definition.vocabulary
        self.merges: list[str] = [f"{left} {right}" for left, right in definition.merges]
        self.fingerprint: str = definition.fingerprint
        self.training: Training | None = declaration.training
        self._candidates = _candidates(definition, declaration)
        self.eos_token: str | None = declaration.eos_token
        self.eos_token_id: int | None = self._declared_id(declaration.eos_token)
        self._full = _build(json_bytes, definition, where)
        self._documents = _without_added_tokens(self._full)
        self._is_control = self._control_ids()

    @classmethod
    def load(cls, path: Path, *, eos_token: str | None = None) -> "Tokenizer":
        """Read a tokenizer directory (ours or Hugging Face's) or a bare tokenizer.json.

        `eos_token` declares the document separator, over what the directory's manifest says.

        Refuses: files.not-found, tokenizer.damaged, tokenizer.not-bpe, tokenizer.dropout,
        tokenizer.vocab-gap, tokenizer.sibling-disagrees, tokenizer.eos-unknown.
        """
        require_exists(path, "a tokenizer directory or a tokenizer.json")
        file = tokenizer_directory.require_tokenizer_json(path) if path.is_dir() else path
        data = read_bytes(
            file, limit_bytes=SIZE_LIMIT_BYTES, id="tokenizer.damaged", what="a tokenizer.json"
        )
        definition = read_definition(data, where=str(file))
        declaration = Declaration()
        if path.is_dir():
            declaration = tokenizer_directory.read_declaration(path, definition, json_bytes=data)
        return cls(
            definition,
            json_bytes=data,
            declaration=declaration.with_eos_token(eos_token),
            where=str(file),
        )

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

    def require_eos_token_id(self) -> int:
        """The id of the document separator.

        Refuses: tokenizer.eos-undeclared.
        """
        if self.eos_token_id is not None:
            return self.eos_token_id
        raise Refusal(
            "tokenizer.eos-undeclared",
            self.where,
            found=f"no declared separator; candidates: {self._candidates}",
            expected="the token that ends a document, declared",
            fix="name it with --eos-token TEXT",
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
        for text in texts:
            self._require_unicode(text)
        with _library_refusals(self.where):
            encodings = self._documents.encode_batch_fast(list(texts), add_special_tokens=False)
        batch = [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]
        for text, token_ids in zip(texts, batch, strict=True):
            self._require_no_control_id(text, token_ids)
        return batch

    def decode(self, token_ids: Sequence[int] | NDArray[np.integer]) -> str:
        """The text that ids stand for, control tokens included.

        Refuses: tokenizer.id-range.
        """
        ids = np.asarray(token_ids, dtype=np.int64)
        if ids.size and not (ids.min() >= 0 and ids.max() < self.vocab_size):
            raise Refusal(
                "tokenizer.id-range",
                self.where,
                found=f"id {ids.max() if ids.max() >= self.vocab_size else ids.min()}",
                expected=f"0 to {self.vocab_size - 1}",
                fix="use the tokenizer that made these ids",
            )
        with _library_refusals(self.where):
            return self._full.decode(ids.tolist(), skip_special_tokens=False)

    def normalize(self, text: str) -> str:
        """The text as the model sees it, after the tokenizer's own normalizer."""
        normalizer = self._full.normalizer
        kind = (self.definition.normalizer or {}).get("type")
        if normalizer is None or (kind in _UNICODE_FORMS and text.isascii()):
            return text
        self._require_unicode(text)
        with _library_refusals(self.where):
            return normalizer.normalize_str(text)

    def save(self, directory: Path, *, overwrite: bool = False) -> None:
        """Write a tokenizer directory that apr and Hugging Face libraries read.

        Refuses: files.exists, files.io-failed.
        Writes: tokenizer.json, tokenizer_config.json, vocab.json, merges.txt, manifest.json.
        """
        tokenizer_directory.write_directory(
            directory,
            self.definition,
            json_bytes=self.json_bytes,
            eos_token=self.eos_token,
            eos_token_id=self.eos_token_id,
            training=self.training,
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
            expected=f"one of the tokenizer's control tokens: {self._candidates}",
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

    def _require_unicode(self, text: str) -> None:
        if text.isascii():
            return
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as err:
            raise Refusal(
                "tokenizer.lone-surrogate",
                self.where,
                found=f"a lone surrogate at character {err.start} of a text",
                expected="text that has a UTF-8 form",
                fix="repair the encoding of the document",
            ) from err

    def _require_no_control_id(self, text: str, token_ids: NDArray[np.uint32]) -> None:
        found = token_ids[self._is_control[token_ids]]
        if not found.size:
            return
        raise Refusal(
            "tokenizer.control-id",
            self.where,
            found=f"{self.vocabulary[found[0]]!r} (id {found[0]}) out of text {text[:60]!r}",
            expected="text that yields no control id",
            fix="this tokenizer spells a control token with ordinary pieces; use another one",
        )


def _build(data: bytes, definition: Definition, where: str) -> tokenizers.Tokenizer:
    with _library_refusals(where):
        full = tokenizers.Tokenizer.from_str(data.decode("utf-8"))
        library_ids = full.get_vocab(with_added_tokens=True)
    if library_ids != definition.ids:
        # The library renumbers added tokens that do not continue the model's ids in order.
        differing = min(
            piece
            for piece in library_ids.keys() | definition.ids.keys()
            if library_ids.get(piece) != definition.ids.get(piece)
        )
        raise DamagedFile(
            "tokenizer.damaged",
            where,
            found=f"{differing!r} has id {library_ids.get(differing)} once loaded",
            expected=f"id {definition.ids.get(differing)}, as the file says",
            fix="list added_tokens in the order of their ids, continuing the vocabulary",
        )
    return full


def _without_added_tokens(full: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    # Truncation and padding are left behind too: they would cut or lengthen documents.
    documents = tokenizers.Tokenizer(full.model)
    if full.normalizer is not None:
        documents.normalizer = full.normalizer
    if full.pre_tokenizer is not None:
        documents.pre_tokenizer = full.pre_tokenizer
    return documents


def _candidates(definition: Definition, declaration: Declaration) -> str:
    special = [token.content for token in definition.added_tokens if token.special]
    text = ", ".join(special[:_NAMED_CANDIDATES]) or "none"
    if len(special) > _NAMED_CANDIDATES:
        text += f" and {len(special) - _NAMED_CANDIDATES} more"
    if declaration.config_eos_token is not None:
        text += f" (tokenizer_config.json names {declaration.config_eos_token} as its eos_token)"
    return text


@contextmanager
def _library_refusals(where: str) -> Iterator[None]:
    """Turn what the tokenizers library raises into a refusal; its panics are no Exception."""
    try:
        yield
    except BaseException as err:
        if not isinstance(err, Exception) and type(err).__name__ != "PanicException":
            raise
        raise DamagedFile(
            "tokenizer.encoder-failed",
            where,
            found=str(err).partition("\n")[0][:200],
            expected="a tokenizer that the tokenizers library can use",
            fix="fetch tokenizer.json again from where it came",
        ) from err
