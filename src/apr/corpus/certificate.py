"""certificate.json: what was checked between two sets of documents, and which two sets those are.

The sets are named by the hashes of their texts, so the certificate fits no other documents,
wherever they lie. It holds nothing that depends on time, path or host: the sha256 of the file is
the identity of the certificate, and the shards of both sides carry it.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apr.corpus.identity import DOCUMENT_HASH_BYTES, documents_sha256
from apr.corpus.reading.documents import document_hash
from apr.errors import DamagedFile, Refusal
from apr.files import parse_json, read_bytes, read_json, sha256_bytes, write_bytes

CERTIFICATE_NAME = "certificate.json"

_LIMIT_BYTES = 8 << 20
_CONTENT_SHA256 = "certificate_content_sha256"

GroupKind = Literal["repo", "package", "file"]
Side = Literal["train", "held-out"]
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Share = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DocumentSet(_Closed):
    """Which documents stand on one side."""

    documents_sha256: Sha256
    """Over the sorted distinct document hashes: order and copies do not matter."""
    num_documents: Count
    text_bytes: Count


class Draw(_Closed):
    """How the sides were drawn."""

    group: GroupKind
    fraction: Share
    seed: int


class ExactCheck(_Closed):
    """No training text is equal to a held-out text, up to the rule's normal form."""

    kind: Literal["exact"] = "exact"
    rule: str
    num_removed: Count
    """Training documents that were left out for it."""
    num_shared: Literal[0] = 0
    """Found again when the sets below were compared."""


class NearCheck(_Closed):
    """No training text is a near-duplicate of a held-out text."""

    kind: Literal["near"] = "near"
    rule: str
    jaccard: Share
    """Shared shingles over all shingles of two texts, from which on they are near-duplicates."""
    shingle_tokens: Count
    num_compared: Count
    """Training documents of which so many shingles are on the held-out side that they were
    compared with each document there; no other one can be so similar."""
    num_removed: Count
    largest_jaccard_left: Share | None
    """Of those that were compared and stay; None where none was."""


class EvaluationSet(_Closed):
    """One file of evaluation items."""

    name: str
    sha256: Sha256
    num_items: Count
    num_too_short: Count
    """Items without enough words to be recognised."""


class NgramCheck(_Closed):
    """No training text holds a large part of an evaluation item or of a held-out text."""

    kind: Literal["ngram"] = "ngram"
    rule: str
    words: Count
    containment: Share
    """Share of an item's n-grams from which on a document is removed."""
    evaluation_sets: list[EvaluationSet]
    num_contaminated: Count
    num_overlapping: Count
    largest_containment_left: Share | None
    """In evaluation items, measured again after the removal; None where no item was given."""
    largest_overlap_left: Share | None
    """With held-out documents, measured again after the removal; None without such a set."""
    misses: str


Check = Annotated[ExactCheck | NearCheck | NgramCheck, Field(discriminator="kind")]


class RemovalList(_Closed):
    """A list whose documents are not in the training set."""

    sha256: Sha256
    num_entries: Count


class Certificate(_Closed):
    """Two sets of documents and what was checked between them."""

    schema_: Literal["apr-certificate-v1"] = Field(alias="schema", default="apr-certificate-v1")
    train: DocumentSet
    """After the removals."""
    held_out: DocumentSet | None
    split: Draw | None
    """None when the two sets were not drawn by apr."""
    checks: list[Check]
    removals: list[RemovalList]
    refines: Sha256 | None
    """The certificate that this one carries on."""

    def side_of(self, set_sha256: str) -> Side | None:
        """Which of the two sets this one is."""
        if set_sha256 == self.train.documents_sha256:
            return "train"
        if self.held_out is not None and set_sha256 == self.held_out.documents_sha256:
            return "held-out"
        return None

    def require_side(self, set_sha256: str, where: object) -> Side:
        """Which of the two sets this one is.

        Refuses: corpus.certificate-mismatch.
        """
        side = self.side_of(set_sha256)
        if side is None:
            held_out = self.held_out.documents_sha256[:12] if self.held_out else "none"
            raise Refusal(
                "corpus.certificate-mismatch",
                where,
                found=f"documents {set_sha256[:12]}",
                expected=f"documents {self.train.documents_sha256[:12]} (train) or {held_out} "
                "(held-out), as the certificate says",
                fix="the documents changed after the certificate was made, or a removal list is "
                "missing: split, or check, the corpus again",
            )
        return side


class DocumentTally:
    """Gathers documents into the record of their set, with 16 bytes of memory for each."""

    def __init__(self) -> None:
        self._hashes = bytearray()
        self._text_bytes = 0

    def add(self, text: str) -> bytes:
        """Count one document; its hash."""
        digest = document_hash(text)
        self._hashes += digest
        self._text_bytes += len(text.encode("utf-8"))
        return digest

    @property
    def num_documents(self) -> int:
        """Copies counted."""
        return len(self._hashes) // DOCUMENT_HASH_BYTES

    def as_set(self) -> DocumentSet:
        """The record of all documents so far."""
        rows = np.frombuffer(bytes(self._hashes), np.uint8).reshape(-1, DOCUMENT_HASH_BYTES)
        return DocumentSet(
            documents_sha256=documents_sha256(rows),
            num_documents=self.num_documents,
            text_bytes=self._text_bytes,
        )


def write_certificate(path: Path, certificate: Certificate) -> str:
    """Write a certificate and return the sha256 of its file.

    Writes: `path`, whole or not at all.
    """
    fields = certificate.model_dump(by_alias=True)
    data = _spell(fields | {_CONTENT_SHA256: sha256_bytes(_spell(fields))})
    write_bytes(path, data)
    return sha256_bytes(data)


def read_certificate(path: Path) -> tuple[Certificate, str]:
    """Read a certificate strictly; also the sha256 of its file.

    Refuses: files.not-found, corpus.certificate-damaged, corpus.certificate-edited.
    """
    data = read_bytes(
        path, limit_bytes=_LIMIT_BYTES, id="corpus.certificate-damaged", what="a certificate"
    )
    try:
        value: Any = parse_json(data)
        if not isinstance(value, dict):
            raise TypeError(f"{type(value).__name__}, not an object")
        fields = cast("dict[str, Any]", value)
        recorded = fields.pop(_CONTENT_SHA256, None)
        certificate = Certificate.model_validate(fields)
    except ValidationError as err:
        first = err.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _damaged("corpus.certificate-damaged", path, f"{place}: {first['msg']}") from err
    except (ValueError, TypeError) as err:
        raise _damaged("corpus.certificate-damaged", path, str(err)) from err
    if recorded != sha256_bytes(_spell(fields)):
        raise _damaged("corpus.certificate-edited", path, "fields that do not fit their own hash")
    return certificate, sha256_bytes(data)


def is_certificate(path: Path) -> bool:
    """Whether a file was a certificate once, sound or not; never raises a refusal."""
    try:
        value: Any = read_json(
            path, limit_bytes=_LIMIT_BYTES, id="corpus.certificate-damaged", what="a certificate"
        )
    except Refusal:
        return False
    return isinstance(value, dict) and _CONTENT_SHA256 in value


def _spell(fields: dict[str, Any]) -> bytes:
    text = json.dumps(fields, indent=2, ensure_ascii=True, allow_nan=False)
    return text.encode("ascii") + b"\n"


def _damaged(id: str, path: Path, found: str) -> DamagedFile:
    return DamagedFile(
        id,
        path,
        found=found,
        expected="a certificate as apr corpus wrote it",
        fix="restore the file, make it again (apr corpus split, dedup or decontaminate), or move "
        "it away",
    )
