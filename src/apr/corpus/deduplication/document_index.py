"""What is remembered of each document of a first reading: some hundred and fifty bytes.

Texts are read twice and never kept: the first reading tells which documents may repeat which, the
second looks at those alone.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apr.corpus.certificate import DocumentSet
from apr.corpus.deduplication.held_out_shingles import HeldOutShingles
from apr.corpus.deduplication.near_duplicates import Match
from apr.corpus.identity import DOCUMENT_HASH_BYTES, documents_sha256, first_of_equal
from apr.corpus.reading.documents import Document, document_hash
from apr.corpus.similarity.normal_form import normal_form, normal_form_hash
from apr.corpus.similarity.shingles import Shingles, shingle
from apr.corpus.similarity.sketches import Bands

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
    similar: "Similar | None"
    """None when nothing similar is looked for."""

    @classmethod
    def read(
        cls, held_out: Iterable[Document], train: Iterable[Document], *, jaccard: float | None
    ) -> "DocumentIndex":
        """Read both sides once; `jaccard` is the similarity that matters, None for none.

        Refuses: corpus.no-rensa.
        """
        gathered = _Gathered(with_shingles=jaccard is not None)
        sets = [
            shingles.set_of(at)
            for _, shingles in gathered.add(held_out)
            for at in range(len(shingles.ends))
        ]
        num_held_out = len(gathered.sizes_bytes)
        shingled_train = gathered.add(train)
        similar = None if jaccard is None else Similar.find(sets, shingled_train, jaccard)
        deque(shingled_train, maxlen=0)
        return cls(
            num_held_out=num_held_out,
            document_hashes=_hash_rows(gathered.document_hashes),
            normal_hashes=_hash_rows(gathered.normal_hashes),
            sizes_bytes=np.array(gathered.sizes_bytes, np.int64),
            similar=similar,
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


@dataclass(frozen=True)
class Similar:
    """What is known of the similarity of training documents after one reading."""

    bands: Bands
    keys: NDArray[np.uint32]
    """Shape [training documents, bands]."""
    to_held_out: dict[int, Match]
    """For each document that was compared with the held-out ones, the most similar of them."""

    @classmethod
    def find(
        cls,
        held_out: Sequence[NDArray[np.uint64]],
        train: Iterable[tuple[int, Shingles]],
        jaccard: float,
    ) -> "Similar":
        """Sketch training documents, and compare each with all held-out sets of shingles.

        `train` yields batches with the index of the first document of each.

        Refuses: corpus.no-rensa.
        """
        bands = Bands.for_jaccard(jaccard)
        of_held_out = HeldOutShingles(held_out, jaccard=jaccard)
        keys = [np.empty((0, bands.num_bands), np.uint32)]
        to_held_out: dict[int, Match] = {}
        for first, shingles in train:
            keys.append(bands.keys(shingles))
            if held_out:
                to_held_out |= {first + at: match for at, match in of_held_out.matches(shingles)}
        return cls(bands, np.concatenate(keys), to_held_out)


class _Gathered:
    """An index that grows."""

    def __init__(self, *, with_shingles: bool) -> None:
        self.document_hashes = bytearray()
        self.normal_hashes = bytearray()
        self.sizes_bytes: list[int] = []
        self._with_shingles = with_shingles

    def add(self, documents: Iterable[Document]) -> Iterator[tuple[int, Shingles]]:
        """Read documents; yields batches of their shingles, if any, after a first index."""
        batch: list[str] = []
        num_characters = 0
        for document in documents:
            self.document_hashes += document_hash(document.text)
            form = normal_form(document.text)
            self.normal_hashes += normal_form_hash(form)
            self.sizes_bytes.append(len(document.text.encode("utf-8")))
            if not self._with_shingles:
                continue
            batch.append(form)
            num_characters += len(form)
            if num_characters >= _BATCH_CHARACTERS:
                yield len(self.sizes_bytes) - len(batch), shingle(batch)
                batch, num_characters = [], 0
        if batch:
            yield len(self.sizes_bytes) - len(batch), shingle(batch)


def _hash_rows(data: bytearray) -> NDArray[np.uint8]:
    return np.frombuffer(bytes(data), np.uint8).reshape(-1, DOCUMENT_HASH_BYTES)
