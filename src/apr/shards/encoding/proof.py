"""Proof, while encoding, that the ids spell the text they were made from.

Every document's bytes are counted back from its ids. A sample, chosen by content and so the
same in every run, is decoded and compared, and another is encoded by the reference as well,
because ids can spell a text and still not be the ids the reference gives it. A tokenizer whose
bytes cannot be counted has every document decoded.
"""

from collections.abc import Sequence
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from apr.corpus.document import Document
from apr.errors import AprError, Refusal
from apr.shards.encoding.batch import Batch, BatchIds
from apr.tokenizer.encoders import Encoder, first_difference
from apr.tokenizer.tokenizer import Tokenizer

_FIRST_DECODED = 2
# Of the 65,536 values that the first two bytes of a hash can have: 0.1 % of all documents.
_SHADOWED_VALUES = 66
_FIRST_SHADOWED = 2
_SHORT_BYTES = 1 << 14


class SpellingProof:
    """Compares documents with their ids, and counts what it compared."""

    def __init__(self, tokenizer: Tokenizer, bytes_per_id: NDArray[np.uint16] | None) -> None:
        """`bytes_per_id`: as `apr.tokenizer.conservation` counts them."""
        self.num_documents = 0
        self.num_decoded = 0
        self.num_changed_by_normalizer = 0
        self._tokenizer = tokenizer
        self._bytes_per_id = bytes_per_id

    def require(self, batch: Batch, encoded: BatchIds) -> None:
        """Refuse documents that their ids do not spell.

        Refuses: shards.text-lost, tokenizer.control-id.
        """
        lengths = encoded.lengths
        if not lengths.all():
            raise _lost(batch.documents[int(np.argmin(lengths))], "no token", "at least one")
        self._tokenizer.require_no_control_id(encoded.ids)
        spelled_bytes = self._spelled_bytes(encoded)
        for index, document in enumerate(batch.documents):
            data = batch.data[index]
            normalized = self._tokenizer.normalized_bytes(document.text, data)
            self.num_changed_by_normalizer += normalized != data
            if spelled_bytes is not None and spelled_bytes[index] != len(normalized):
                found = f"ids that spell {spelled_bytes[index]} bytes"
                raise _lost(document, found, f"{len(normalized)} bytes")
            if self._is_sampled(batch.hashes[index]):
                self._require_text(document, normalized, encoded.of(index))
            self.num_documents += 1

    def _spelled_bytes(self, encoded: BatchIds) -> NDArray[np.int64] | None:
        if self._bytes_per_id is None:
            return None
        # `take` needs half the time of indexing; no id is out of range here.
        sizes = self._bytes_per_id.take(encoded.ids)
        return np.add.reduceat(sizes, encoded.offsets[:-1], dtype=np.int64)

    def _is_sampled(self, document_hash: bytes) -> bool:
        if self._bytes_per_id is None or self.num_documents < _FIRST_DECODED:
            return True
        return document_hash[0] == 0

    def _require_text(
        self, document: Document, normalized: bytes, token_ids: NDArray[np.uint32]
    ) -> None:
        decoded = self._tokenizer.decode(token_ids)
        self.num_decoded += 1
        # Some tokenizers put a space before the first word and do not take it away again.
        if decoded in (document.text, normalized.decode("utf-8"), f" {document.text}"):
            return
        at = _first_difference(decoded, document.text)
        raise _lost(
            document,
            f"ids that decode to {decoded[at : at + 20]!r} at character {at}",
            repr(document.text[at : at + 20]),
        )


class EncoderDiffers(AprError):
    """The encoder in use gave a document other ids than the reference."""

    def __init__(self, place: str, token_index: int, found: str, expected: str) -> None:
        super().__init__(place, token_index, found, expected)
        self.place = place
        self.token_index = token_index
        self.found = found
        self.expected = expected

    def as_dict(self) -> dict[str, str | int]:
        """What another process needs to raise the same."""
        return {
            "place": self.place,
            "token_index": self.token_index,
            "found": self.found,
            "expected": self.expected,
        }


class ShadowCheck:
    """Encodes a thousandth of all documents with the reference too, while the encoding runs.

    The first short documents of every task are compared besides, so that a small corpus is not
    left without. They depend on how the input was cut, so only the others are counted.
    """

    def __init__(self, encoder: Encoder, reference: Encoder) -> None:
        self.num_documents = 0
        self._num_first = 0
        self._reference = None if encoder is reference else reference

    def require(self, batch: Batch, encoded: BatchIds) -> None:
        """Raise EncoderDiffers for the first sampled document whose ids differ."""
        chosen = [index for index, hash in enumerate(batch.hashes) if _is_shadowed(hash)]
        self._require_equal(batch, encoded, [*chosen, *self._first(batch)])
        if self._reference is not None:
            self.num_documents += len(chosen)

    def require_all(self, batch: Batch, encoded: BatchIds) -> None:
        """Raise EncoderDiffers for the first document whose ids differ."""
        self._require_equal(batch, encoded, range(len(batch.documents)))

    def _first(self, batch: Batch) -> list[int]:
        if self._num_first == _FIRST_SHADOWED:
            return []
        short = [index for index, data in enumerate(batch.data) if len(data) <= _SHORT_BYTES]
        first = short[: _FIRST_SHADOWED - self._num_first]
        self._num_first += len(first)
        return first

    def _require_equal(self, batch: Batch, encoded: BatchIds, indices: Sequence[int]) -> None:
        if self._reference is None or not indices:
            return
        texts = [batch.documents[index].text for index in indices]
        ids, offsets = self._reference.encode_flat(texts)
        for at, index in enumerate(indices):
            found, expected = encoded.of(index), ids[int(offsets[at]) : int(offsets[at + 1])]
            place = first_difference(found, expected)
            if place is not None:
                raise EncoderDiffers(
                    batch.documents[index].place,
                    place,
                    f"ids {found[place : place + 4].tolist()}",
                    f"ids {expected[place : place + 4].tolist()}",
                )


def _is_shadowed(document_hash: bytes) -> bool:
    return int.from_bytes(document_hash[:2], "big") < _SHADOWED_VALUES


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
