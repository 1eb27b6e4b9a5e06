"""Proof, while encoding, that the ids spell the text they were made from.

Every document's bytes are counted back from its ids; a sample, chosen by content and so the
same in every run, is decoded and compared. A tokenizer whose bytes cannot be counted has every
document decoded.
"""

from collections.abc import Sequence
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from apr.corpus.documents import Document
from apr.errors import Refusal
from apr.shards.layout import document_hash
from apr.tokenizer.conservation import bytes_per_id
from apr.tokenizer.tokenizer import Tokenizer

_FIRST_DECODED = 16


class SpellingProof:
    """Compares documents with their ids, and counts what it compared."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.num_documents = 0
        self.num_decoded = 0
        self.num_changed_by_normalizer = 0
        self._tokenizer = tokenizer
        self._bytes_per_id = bytes_per_id(tokenizer.definition)

    def require(self, documents: Sequence[Document], batch: Sequence[NDArray[np.uint32]]) -> None:
        """Refuse documents that their ids do not spell.

        Refuses: shards.text-lost.
        """
        for document, token_ids in zip(documents, batch, strict=True):
            if not token_ids.size:
                raise _lost(document, "no token", "at least one")
            normalized = self._tokenizer.normalize(document.text)
            self.num_changed_by_normalizer += normalized != document.text
            self._require_bytes(document, normalized, token_ids)
            if self._is_sampled(document):
                self._require_text(document, normalized, token_ids)
            self.num_documents += 1

    def _require_bytes(
        self, document: Document, normalized: str, token_ids: NDArray[np.uint32]
    ) -> None:
        if self._bytes_per_id is None:
            return
        spelled_bytes = int(self._bytes_per_id[token_ids].sum())
        text_bytes = len(normalized.encode("utf-8"))
        if spelled_bytes != text_bytes:
            raise _lost(document, f"ids that spell {spelled_bytes} bytes", f"{text_bytes} bytes")

    def _is_sampled(self, document: Document) -> bool:
        if self._bytes_per_id is None or self.num_documents < _FIRST_DECODED:
            return True
        return document_hash(document.text)[0] == 0

    def _require_text(
        self, document: Document, normalized: str, token_ids: NDArray[np.uint32]
    ) -> None:
        decoded = self._tokenizer.decode(token_ids)
        self.num_decoded += 1
        # Some tokenizers put a space before the first word and do not take it away again.
        if decoded in (document.text, normalized, f" {document.text}"):
            return
        at = _first_difference(decoded, document.text)
        raise _lost(
            document,
            f"ids that decode to {decoded[at : at + 20]!r} at character {at}",
            repr(document.text[at : at + 20]),
        )


def _first_difference(decoded: str, text: str) -> int:
    pairs = zip(decoded, text, strict=False)
    same = takewhile(lambda pair: pair[0] == pair[1], pairs)
    return sum(1 for _ in same)


def _lost(document: Document, found: str, expected: str) -> Refusal:
    return Refusal(
        "shards.text-lost",
        document.place,
        found=found,
        expected=expected,
        fix="use a tokenizer that can spell any text, such as a byte-level BPE",
    )
