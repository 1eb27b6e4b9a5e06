"""One document: a text with an identity, and how much text one may hold."""

import hashlib
from dataclasses import dataclass

from apr.corpus.identity import DOCUMENT_HASH_BYTES

# The encoder takes a document whole and needs some 300 bytes of memory per token of it.
DOCUMENT_LIMIT_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Document:
    """One text, where it came from, and what it must not be separated from in a split."""

    text: str
    source: str
    """The file, as `location_text` of apr.corpus.reading.locations writes it; it has UTF-8."""
    group: str
    row: int | None = None
    """Which row of the file, from 1; None when the document is the whole file."""
    extras: tuple[object, ...] = ()
    """What the row holds in the extra fields that a reader was asked for, in their order."""

    @property
    def place(self) -> str:
        """Where a person finds it: the file, with the row where there is one."""
        return place(self.source, self.row)


def place(source: str, row: int | None) -> str:
    """A file and a row as one text."""
    return source if row is None else f"{source}:{row}"


def document_hash(text: str) -> bytes:
    """The identity of a document: 16 bytes of its text alone."""
    return data_hash(text.encode("utf-8"))


def data_hash(data: bytes) -> bytes:
    """The same for a text that is UTF-8 already."""
    return hashlib.blake2b(data, digest_size=DOCUMENT_HASH_BYTES).digest()
