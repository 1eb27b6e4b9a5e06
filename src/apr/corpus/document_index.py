"""What is remembered of each document of a first reading: some hundred and fifty bytes.

Texts are read twice and never kept: the first reading tells which documents may repeat which, the
second looks at those alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apr.corpus.certificate import DocumentSet
from apr.corpus.documents import Document, document_hash
from apr.corpus.identity import DOCUMENT_HASH_BYTES, documents_sha256, first_of_equal
from apr.corpus.normal_form import normal_form, normal_form_hash
from apr.corpus.shingles import shingle
from apr.corpus.sketches import Bands

# Enough documents at once for numpy, few enough for the processor's cache.
_BATCH_CHARACTERS = 1 << 18


@dataclass(frozen=True)
class DocumentIndex:
    """One entry per document, the held-out ones first."""

    num_held_out: int
    document_hashes: NDArray[np.uint8]
    """Shape [documents, 16]."""
    normal_hashes: NDArray[np.uint8]
    """Shape [documents, 16]: equal for texts that count as the same."""
    sizes_bytes: NDArray[np.int64]
    keys: NDArray[np.uint32] | None
    """Shape [documents, bands]; None when nothing similar is looked for."""

    @classmethod
    def read(
        cls, held_out: Iterable[Document], train: Iterable[Document], *, bands: Bands | None
    ) -> "DocumentIndex":
        """Read both sides once.

        Refuses: corpus.no-rensa.
        """
        gathered = _Gathered(bands)
        gathered.add(held_out)
        num_held_out = len(gathered.sizes_bytes)
        gathered.add(train)
        return cls(
            num_held_out=num_held_out,
            document_hashes=_hash_rows(gathered.document_hashes),
            normal_hashes=_hash_rows(gathered.normal_hashes),
            sizes_bytes=np.array(gathered.sizes_bytes, np.int64),
            keys=np.concatenate(gathered.keys) if bands else None,
        )

    @property
    def num_documents(self) -> int:
        """Of both sides."""
        return len(self.sizes_bytes)

    def first_copies(self) -> NDArray[np.int64]:
        """For each document the first one whose text counts as the same, often itself."""
        return first_of_equal(self.normal_hashes)

    def set_of(self, chosen: NDArray[np.bool_] | slice) -> DocumentSet:
        """The record of some of the documents."""
        hashes, sizes_bytes = self.document_hashes[chosen], self.sizes_bytes[chosen]
        return DocumentSet(
            documents_sha256=documents_sha256(hashes),
            num_documents=len(hashes),
            text_bytes=int(sizes_bytes.sum()),
        )


class _Gathered:
    """An index that grows."""

    def __init__(self, bands: Bands | None) -> None:
        self.document_hashes = bytearray()
        self.normal_hashes = bytearray()
        self.sizes_bytes: list[int] = []
        self.keys: list[NDArray[np.uint32]] = []
        self._bands = bands
        self._batch: list[str] = []

    def add(self, documents: Iterable[Document]) -> None:
        num_characters = 0
        for document in documents:
            self.document_hashes += document_hash(document.text)
            form = normal_form(document.text)
            self.normal_hashes += normal_form_hash(form)
            self.sizes_bytes.append(len(document.text.encode("utf-8")))
            if self._bands is None:
                continue
            self._batch.append(form)
            num_characters += len(form)
            if num_characters >= _BATCH_CHARACTERS:
                self._sketch(self._bands)
                num_characters = 0
        if self._bands is not None:
            self._sketch(self._bands)

    def _sketch(self, bands: Bands) -> None:
        self.keys.append(bands.keys(shingle(self._batch)))
        self._batch.clear()


def _hash_rows(data: bytearray) -> NDArray[np.uint8]:
    return np.frombuffer(bytes(data), np.uint8).reshape(-1, DOCUMENT_HASH_BYTES)
