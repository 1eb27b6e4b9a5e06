"""How many of a run's training tokens stand in copies of documents that are counted already.

Documents are compared by the hash of their text, over all sources of a run and within each, so a
text counts once however often, and in however many sources, it stands.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apr.corpus.identity import DOCUMENT_HASH_BYTES, first_of_equal
from apr.shards.layout import index_name, read_index
from apr.shards.manifest import Manifest
from apr.train.batches import TokenRows
from apr.units import format_count

# Comparing takes some 100 bytes a document; of more than these, a part at a time is compared.
_DOCUMENTS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class SourceDocuments:
    """The documents that a run may train on in one source: whose texts they are, and how long.

    Shapes: hashes [N, 16], sizes [N], both empty where the source does not tell.
    """

    name: str
    manifest: Manifest
    num_tokens: int
    hashes: NDArray[np.uint8]
    sizes: NDArray[np.int64]

    @property
    def doubt(self) -> str | None:
        """Why its copies are not known, if they are not."""
        if not len(self.hashes):
            return f"{self.name} has no index files"
        if self.manifest.repaired and self.manifest.eos_policy == "none":
            return f"nothing says where the documents of {self.name} end"
        return None


@dataclass(frozen=True)
class Copies:
    """Tokens of all sources, and those of them that are copies."""

    num_tokens_by_source: tuple[int, ...]
    copied_within: tuple[int, ...]
    """Tokens of documents that stood earlier in the same source."""
    copied_across: int
    """Tokens of other documents that stood in an earlier source."""
    doubt: str | None = None
    """Why there may be more copies than were found."""

    @property
    def num_tokens(self) -> int:
        """Tokens of all sources, copies included."""
        return sum(self.num_tokens_by_source)

    @property
    def copied_tokens(self) -> int:
        """Tokens of the copies that were found."""
        return sum(self.copied_within) + self.copied_across

    @property
    def unique_tokens(self) -> int:
        """Tokens of all documents, each text counted once."""
        return self.num_tokens - self.copied_tokens

    @property
    def times_over(self) -> float:
        """How often a token stands there, on average."""
        return self.num_tokens / self.unique_tokens

    @property
    def unique_tokens_by_source(self) -> list[int]:
        """Tokens of each source's documents, each text counted once in each source."""
        pairs = zip(self.num_tokens_by_source, self.copied_within, strict=True)
        return [num_tokens - copied for num_tokens, copied in pairs]

    def notice(self) -> str | None:
        """What to tell a person, if there is anything to tell."""
        parts: list[str] = []
        if copied := self.copied_tokens:
            where = "another source"
            if not self.copied_across:
                where = "the same source"
            elif across := copied - self.copied_across:
                where += f" or, {format_count(across)} of them, in the same"
            parts.append(
                f"{format_count(copied)} of {format_count(self.num_tokens)} tokens are copies of "
                f"documents in {where}"
            )
        if self.doubt:
            parts.append(f"{'more' if parts else 'some'} may be copies: {self.doubt}")
        return "; ".join(parts) or None

    def facts(self) -> dict[str, int | str | None]:
        """The tokens for a record; what copies there are is null where that is not known."""
        facts: dict[str, int | str | None] = {
            "unique_tokens": self.unique_tokens,
            "copied_tokens": None if self.doubt else self.copied_tokens,
        }
        return facts | ({"copied_tokens_reason": self.doubt} if self.doubt else {})


def documents_of_rows(rows: TokenRows) -> SourceDocuments:
    """The documents of an opened source; those set aside from it are none of them."""
    shards = rows.shards
    ends = shards.document_ends
    first = int(np.searchsorted(ends, rows.start, side="right"))
    last = int(np.searchsorted(ends, rows.stop, side="left")) + 1
    return SourceDocuments(
        str(shards.directory),
        shards.manifest,
        rows.stop - rows.start,
        shards.document_hashes[first:last],
        np.diff(ends[first:last].astype(np.int64), prepend=rows.start),
    )


def documents_of_directory(directory: Path, manifest: Manifest) -> SourceDocuments:
    """The documents of a shard directory from its index files; of shards only the manifest is read.

    Refuses: shards.index-damaged, files.io-failed.
    """
    files = [directory / index_name(shard.file) for shard in manifest.shards]
    hashes = [np.empty((0, DOCUMENT_HASH_BYTES), np.uint8)]
    sizes = [np.empty(0, np.int64)]
    # A plan can be made where there is no more than a manifest.
    if all(file.is_file() for file in files):
        for file, shard in zip(files, manifest.shards, strict=True):
            index = read_index(file, num_tokens=shard.num_tokens, num_documents=shard.num_documents)
            hashes.append(index.document_hashes)
            sizes.append(np.diff(index.document_ends.astype(np.int64), prepend=0))
    return SourceDocuments(
        str(directory),
        manifest,
        manifest.total_tokens,
        np.concatenate(hashes),
        np.concatenate(sizes),
    )


def count_copies(
    sources: Sequence[SourceDocuments], *, documents_at_once: int = _DOCUMENTS_AT_ONCE
) -> Copies:
    """Count each document's text once over all sources; exact where all of them tell their texts.

    Memory beside the sources is that of comparing `documents_at_once` of them.
    """
    within, across = np.zeros(len(sources), np.int64), 0
    for hashes, sizes, numbers in _parts(sources, documents_at_once):
        at = _may_repeat(hashes)
        hashes, sizes, numbers = hashes[at], sizes[at], numbers[at]
        firsts = first_of_equal(hashes)
        is_copy = firsts != np.arange(len(firsts))
        _, kept = np.unique(firsts * len(sources) + numbers, return_index=True)
        is_within = np.ones(len(firsts), np.bool_)
        is_within[kept] = False
        np.add.at(within, numbers[is_within], sizes[is_within])
        across += int(sizes[is_copy & ~is_within].sum())
    return Copies(
        tuple(source.num_tokens for source in sources),
        tuple(within.tolist()),
        across,
        _doubt(sources),
    )


_Part = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]


def _parts(sources: Sequence[SourceDocuments], documents_at_once: int) -> Iterator[_Part]:
    """Hashes, sizes and source numbers of documents, all equal ones in the same part."""
    num_parts = max(1, -(-sum(len(source.sizes) for source in sources) // documents_at_once))
    for part in range(num_parts):
        chosen = [
            np.flatnonzero(source.hashes.view(np.uint64)[:, 0] % np.uint64(num_parts) == part)
            for source in sources
        ]
        yield (
            np.concatenate([source.hashes[at] for source, at in zip(sources, chosen, strict=True)]),
            np.concatenate([source.sizes[at] for source, at in zip(sources, chosen, strict=True)]),
            np.repeat(np.arange(len(sources)), [len(at) for at in chosen]),
        )


def _may_repeat(hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Where hashes stand whose first half stands twice: in most data few, found by a plain sort."""
    words = hashes.view(np.uint64)[:, 0]
    ordered = np.sort(words)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(repeated):
        return np.empty(0, np.int64)
    places = np.minimum(np.searchsorted(repeated, words), len(repeated) - 1)
    return np.flatnonzero(repeated[places] == words)


def _doubt(sources: Sequence[SourceDocuments]) -> str | None:
    """Why a text may have two hashes in these sources, or none."""
    doubts = [source.doubt for source in sources if source.doubt]
    manifests = [source.manifest for source in sources]
    # A repair hashes decoded text, which is the original unless a normalizer changed it.
    changed = [each.statistics.num_documents_changed_by_normalizer for each in manifests]
    if any(each.repaired for each in manifests) and any(changed):
        doubts.append("hashes of decoded text, after a repair, beside hashes of originals")
    return "; ".join(doubts) or None
