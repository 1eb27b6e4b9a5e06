"""Documents on their way through one call of the encoder."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from apr.corpus.document import Document


@dataclass(frozen=True)
class Batch:
    """Documents, their text in UTF-8, and the hash that is their identity."""

    documents: list[Document] = field(default_factory=list[Document])
    data: list[bytes] = field(default_factory=list[bytes])
    hashes: list[bytes] = field(default_factory=list[bytes])

    def append(self, document: Document, data: bytes, hash: bytes) -> None:
        """Add one document."""
        self.documents.append(document)
        self.data.append(data)
        self.hashes.append(hash)

    @property
    def texts(self) -> list[str]:
        """The texts, as an encoder takes them."""
        return [document.text for document in self.documents]


@dataclass(frozen=True)
class BatchIds:
    """The ids of a batch in one run; document i has those from offsets[i] to offsets[i + 1]."""

    ids: NDArray[np.uint32]
    offsets: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Ids of each document."""
        return np.diff(self.offsets)

    def of(self, index: int) -> NDArray[np.uint32]:
        """The ids of one document."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def with_separator(self, eos_token_id: int) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The ids with a separator after every document, and where each document then ends."""
        ends = self.offsets[1:] + np.arange(1, len(self.offsets))
        is_text = np.ones(len(self.ids) + len(ends), np.bool_)
        is_text[ends - 1] = False
        joined = np.full(len(is_text), eos_token_id, np.uint32)
        joined[is_text] = self.ids
        return joined, ends
