"""Where the documents of a directory come from, as keys that can be compared by the million."""

from array import array
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apr.corpus.identity import DOCUMENT_HASH_BYTES
from apr.errors import DamagedFile
from apr.shards.provenance import PROVENANCE_NAME, Row, has_provenance, read_provenance
from apr.shards.tracing.pairing import Keys


@dataclass(frozen=True)
class Origins:
    """One key for the place of each row, documents and others apart."""

    documents: Keys
    left_out: Keys
    reason_codes: NDArray[np.uint64]
    reasons: list[str]

    def reason(self, number: int) -> str:
        """Why one of the rows that are left out is no document."""
        return self.reasons[int(self.reason_codes[number])]


def read_origins(directory: Path, *, num_documents: int) -> Origins | None:
    """The places of all rows; None when the directory does not say.

    Refuses: shards.provenance-damaged.
    """
    if not has_provenance(directory):
        return None
    documents, left_out, codes = bytearray(), bytearray(), array("Q")
    reasons: dict[str, int] = {}
    for row in read_provenance(directory):
        if row.is_document:
            documents += _key(row)
            continue
        left_out += _key(row)
        fate = f"dropped: {row.dropped}" if row.dropped else f"quarantined: {row.quarantined}"
        codes.append(reasons.setdefault(fate, len(reasons)))
    if len(documents) != num_documents * DOCUMENT_HASH_BYTES:
        raise DamagedFile(
            "shards.provenance-damaged",
            directory / PROVENANCE_NAME,
            found=f"{len(documents) // DOCUMENT_HASH_BYTES} documents",
            expected=f"{num_documents}, as the shards have",
            fix="copy the file that belongs to these shards, or delete it",
        )
    return Origins(_keys(documents), _keys(left_out), np.array(codes), list(reasons))


def _key(row: Row) -> bytes:
    text = f"{row.source}\0{'' if row.row is None else row.row}"
    return blake2b(text.encode("utf-8"), digest_size=DOCUMENT_HASH_BYTES).digest()


def _keys(data: bytearray) -> Keys:
    return np.frombuffer(data, f"V{DOCUMENT_HASH_BYTES}")
