"""Documents that repeat one another, remembered in 44 bytes each and never as texts."""

from array import array
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apr.corpus.certificate import DocumentSet
from apr.corpus.document import Document, data_hash
from apr.corpus.identity import DOCUMENT_HASH_BYTES, documents_sha256, first_of_equal
from apr.corpus.similarity import normal_form
from apr.corpus.similarity.normal_form import normal_hash

_PLACES_SHOWN = 3


@dataclass(frozen=True)
class Copies:
    """What would go if every text stood there once."""

    num_documents: int
    text_bytes: int

    def as_dict(self) -> dict[str, int]:
        """The counts as JSON."""
        return {"num_documents": self.num_documents, "text_bytes": self.text_bytes}


class CopyIndex:
    """Grows by one entry per document; the counts are of all documents so far."""

    def __init__(self) -> None:
        self._hashes = bytearray()
        self._normal_hashes = bytearray()
        # A document has at most 8 MiB.
        self._sizes_bytes = array("I")
        self._rows = array("Q")
        self._sources: list[str] = []
        self._first_of_source: list[int] = []

    def add(self, document: Document, data: bytes) -> None:
        """Remember a document; `data` is its text in UTF-8."""
        if not self._sources or self._sources[-1] != document.source:
            self._sources.append(document.source)
            self._first_of_source.append(len(self._rows))
        self._hashes += data_hash(data)
        self._normal_hashes += normal_hash(document.text)
        self._sizes_bytes.append(len(data))
        # Rows count from 1.
        self._rows.append(document.row or 0)

    def as_set(self) -> DocumentSet:
        """The record of the set of documents, as a certificate has it."""
        return DocumentSet(
            documents_sha256=documents_sha256(_hash_rows(self._hashes)),
            num_documents=len(self._rows),
            text_bytes=int(self._sizes().sum()),
        )

    def as_dict(self, num_shown: int) -> dict[str, Any]:
        """Copies to the byte and up to the normal form, and the texts repeated most, as JSON."""
        firsts = first_of_equal(_hash_rows(self._normal_hashes))
        exact = first_of_equal(_hash_rows(self._hashes))
        return {
            "exact": self._copies(exact).as_dict(),
            "normal_form": {"rule": normal_form.RULE} | self._copies(firsts).as_dict(),
            "most_repeated": self._most_repeated(firsts, exact, num_shown),
        }

    def _copies(self, firsts: NDArray[np.int64]) -> Copies:
        is_copy = firsts != np.arange(len(firsts))
        return Copies(int(is_copy.sum()), int(self._sizes()[is_copy].sum()))

    def _most_repeated(
        self, firsts: NDArray[np.int64], exact: NDArray[np.int64], num_shown: int
    ) -> list[dict[str, Any]]:
        counts = np.bincount(firsts, minlength=len(firsts))
        repeated = np.flatnonzero(counts > 1)
        order = np.lexsort((repeated, -self._sizes()[repeated], -counts[repeated]))
        shown: list[dict[str, Any]] = []
        for first in repeated[order[:num_shown]].tolist():
            members = np.flatnonzero(firsts == first)
            shown.append(
                {
                    "num_copies": len(members),
                    "num_spellings": len(np.unique(exact[members])),
                    "text_bytes": int(self._sizes()[members].sum()),
                    "places": [self._place(at) for at in members[:_PLACES_SHOWN].tolist()],
                }
            )
        return shown

    def _place(self, at: int) -> dict[str, Any]:
        source = self._sources[bisect_right(self._first_of_source, at) - 1]
        return {"source": source} | ({"row": self._rows[at]} if self._rows[at] else {})

    def _sizes(self) -> NDArray[np.int64]:
        return np.array(self._sizes_bytes, np.int64)


def _hash_rows(data: bytearray) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8).reshape(-1, DOCUMENT_HASH_BYTES)
