"""Stored documents turned back into text, and that text into ids again, by the reference.

The index holds a hash of each document's text, so text that comes back can be recognised although
the text itself is not stored. Only where the tokenizer's normalizer changed a document before it
was encoded does the original stay out of reach; such documents are counted apart.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apr.corpus.identity import DOCUMENT_HASH_BYTES
from apr.errors import Refusal
from apr.progress import Progress, Report, silent
from apr.shards.layout import document_hash
from apr.shards.reader import ShardReader
from apr.tokenizer.tokenizer import Tokenizer

_BATCH_TOKENS = 1 << 18


@dataclass(frozen=True)
class Mismatch:
    """The first document that did not come back as it was."""

    document_index: int
    found: str
    expected: str


@dataclass
class RoundTrip:
    """How many documents were compared, and how they came back."""

    num_compared: int = 0
    num_same_text: int = 0
    """Documents whose decoded text has the recorded hash."""
    num_changed_by_normalizer: int = 0
    """Documents whose text is known or must be assumed to have been changed before encoding."""
    num_same_ids: int = 0
    """Documents whose decoded text is given the same ids again; counted when asked for."""
    text_mismatch: Mismatch | None = None
    """The first text that is not the recorded one and cannot be what the normalizer made of it."""
    unrecognized: Mismatch | None = None
    """The first text that is not the recorded one, for whatever reason."""
    ids_mismatch: Mismatch | None = None


def sample_by_content(reader: ShardReader, num_documents: int | None) -> NDArray[np.int64]:
    """The first and last document of each shard and so many others, the same in every run.

    The others are the distinct contents with the lowest hashes; None takes all documents.
    """
    if num_documents is None or num_documents >= reader.num_documents:
        return np.arange(reader.num_documents, dtype=np.int64)
    hashes = np.ascontiguousarray(reader.document_hashes).view(f"V{DOCUMENT_HASH_BYTES}").ravel()
    _, first_places = np.unique(hashes, return_index=True)
    ends = np.cumsum([shard.num_documents for shard in reader.manifest.shards])
    borders = np.concatenate([ends - 1, [0], ends[:-1]])
    return np.union1d(first_places[:num_documents], borders).astype(np.int64)


def compare_documents(
    reader: ShardReader,
    tokenizer: Tokenizer,
    document_indices: Sequence[int] | NDArray[np.int64],
    *,
    encode_again: bool,
    progress: Report = silent,
) -> RoundTrip:
    """Decode documents and compare text, and ids where asked; the library encodes, not its rival.

    Ids must be below the tokenizer's size.
    """
    result = RoundTrip()
    for batch in _batches(reader, document_indices):
        texts = [_compare_text(reader, tokenizer, index, result) for index in batch]
        if encode_again:
            _compare_ids(reader, tokenizer, batch, texts, result)
        progress(Progress("comparing", result.num_compared, len(document_indices), "documents"))
    return result


def text_problem(reader: ShardReader, returned: RoundTrip) -> tuple[str, str] | None:
    """What contradicts that the ids spell the documents that were encoded, as (found, expected).

    The manifest counts the documents that the normalizer changed, so that no text can hide there.
    """
    if returned.text_mismatch is not None:
        return returned.text_mismatch.found, returned.text_mismatch.expected
    changed = returned.num_changed_by_normalizer
    most = reader.manifest.statistics.num_documents_changed_by_normalizer
    if most is None:
        return None
    fewest = max(0, most - (reader.num_documents - returned.num_compared))
    if fewest <= changed <= most:
        return None
    first = f"; {returned.unrecognized.found}" if returned.unrecognized else ""
    return (
        f"{changed} of {returned.num_compared} documents changed by the normalizer{first}",
        f"{fewest} to {most}, as the manifest counts them",
    )


def _batches(
    reader: ShardReader, document_indices: Sequence[int] | NDArray[np.int64]
) -> Iterator[list[int]]:
    batch: list[int] = []
    num_tokens = 0
    for document_index in map(int, document_indices):
        start, stop = reader.document_range(document_index)
        batch.append(document_index)
        num_tokens += stop - start
        if num_tokens >= _BATCH_TOKENS:
            yield batch
            batch, num_tokens = [], 0
    if batch:
        yield batch


def _compare_text(
    reader: ShardReader, tokenizer: Tokenizer, document_index: int, result: RoundTrip
) -> str:
    """Count one document; return the text that its ids are compared by."""
    result.num_compared += 1
    recorded = reader.document_hashes[document_index].tobytes()
    decoded = tokenizer.decode(reader.document_ids(document_index))
    # Some tokenizers put a space before the first word and do not take it away again.
    for text in (decoded, decoded.removeprefix(" ")):
        if document_hash(text) == recorded:
            result.num_same_text += 1
            result.num_changed_by_normalizer += tokenizer.normalize(text) != text
            return text
    mismatch = Mismatch(
        document_index,
        f"document {document_index} decodes to {decoded[:40]!r}... with hash "
        f"{document_hash(decoded).hex()}",
        f"a text with the recorded hash {recorded.hex()}",
    )
    result.unrecognized = result.unrecognized or mismatch
    has_normalizer = tokenizer.definition.normalizer is not None
    if has_normalizer and tokenizer.normalize(decoded) == decoded:
        result.num_changed_by_normalizer += 1
    else:
        result.text_mismatch = result.text_mismatch or mismatch
    return decoded


def _compare_ids(
    reader: ShardReader,
    tokenizer: Tokenizer,
    document_indices: list[int],
    texts: list[str],
    result: RoundTrip,
) -> None:
    for document_index, text in zip(document_indices, texts, strict=True):
        stored = reader.document_ids(document_index)
        try:
            encoded = tokenizer.encode(text)
        except Refusal as refusal:
            mismatch = Mismatch(document_index, refusal.found, refusal.expected)
        else:
            if np.array_equal(stored, encoded):
                result.num_same_ids += 1
                continue
            mismatch = _ids_mismatch(document_index, stored, encoded)
        result.ids_mismatch = result.ids_mismatch or mismatch


def _ids_mismatch(
    document_index: int, stored: NDArray[np.uint32], encoded: NDArray[np.uint32]
) -> Mismatch:
    length = min(len(stored), len(encoded))
    differing = np.flatnonzero(stored[:length] != encoded[:length])
    at = int(differing[0]) if len(differing) else length
    return Mismatch(
        document_index,
        f"document {document_index}, token {at} of {len(stored)}: ids "
        f"{stored[at : at + 4].tolist()}",
        f"ids {encoded[at : at + 4].tolist()}, as the tokenizer encodes the same text",
    )
