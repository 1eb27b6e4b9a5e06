"""Read a directory of shards as one stream of ids, opening only what its manifest names.

Sizes, names and indexes are checked at every opening. `verify` also reads every byte: the
sha256 of both files of each shard, the largest id and the number of separators.
"""

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apr.errors import Refusal
from apr.files import io_refusals, sha256_file
from apr.progress import Progress, Report, silent
from apr.shards.layout import TOKEN_DTYPE, Index, index_name, read_index
from apr.shards.manifest import Manifest, read_manifest
from apr.shards.mapped_shard import MappedShard, damaged, require_file
from apr.shards.threads import by_threads

# The allocator gives larger pieces back to the system each time, which clears them again.
_CHUNK_BYTES = 1 << 20


class ShardReader:
    """The tokens and documents of a shard directory, memory-mapped."""

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        manifest_sha256: str,
        *,
        tokens: list[MappedShard],
        indexes: list[Index],
    ) -> None:
        self.directory = directory
        self.manifest = manifest
        self.manifest_sha256 = manifest_sha256
        self._tokens = tokens
        self._ends = np.cumsum([len(shard) for shard in tokens])
        starts = self._ends - [len(shard) for shard in tokens]
        self.document_ends: NDArray[np.uint64] = np.concatenate(
            [
                index.document_ends + np.uint64(start)
                for index, start in zip(indexes, starts, strict=True)
            ]
        )
        self.document_hashes: NDArray[np.uint8] = np.concatenate(
            [index.document_hashes for index in indexes]
        )

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        verify: bool = True,
        num_threads: int = 1,
        progress: Report = silent,
    ) -> "ShardReader":
        """Open a directory; with `verify`, read every byte and compare it with the manifest.

        `num_threads` of them read at once.

        Refuses: files.not-found, shards.manifest-missing, shards.manifest-damaged,
        shards.manifest-edited, shards.manifest-inconsistent, shards.foreign-file,
        shards.file-missing, shards.size, shards.index-damaged, shards.hash-mismatch,
        shards.id-range, shards.separators.
        """
        manifest, manifest_sha256 = read_manifest(directory)
        _require_no_foreign_files(directory, manifest)
        tokens = [
            MappedShard(directory / shard.file, size_bytes=shard.size_bytes, sha256=shard.sha256)
            for shard in manifest.shards
        ]
        indexes = [
            read_index(
                require_file(directory / index_name(shard.file)),
                num_tokens=shard.num_tokens,
                num_documents=shard.num_documents,
            )
            for shard in manifest.shards
        ]
        if verify:
            _verify(directory, manifest, num_threads, progress)
        return cls(directory, manifest, manifest_sha256, tokens=tokens, indexes=indexes)

    @property
    def num_tokens(self) -> int:
        """Tokens in all shards, separators included."""
        return self.manifest.total_tokens

    @property
    def num_documents(self) -> int:
        """Documents in all shards."""
        return len(self.document_ends)

    def read(self, start: int, stop: int) -> NDArray[np.uint32]:
        """The ids at positions start to stop of the stream, across shard borders, as a copy.

        Refuses: as `MappedShard.read`.
        """
        self._require_within(start, stop)
        ids = np.empty(stop - start, dtype=np.uint32)
        shard_index = int(np.searchsorted(self._ends, start, side="right"))
        filled = 0
        while filled < len(ids):
            shard = self._tokens[shard_index]
            offset = start + filled - (int(self._ends[shard_index]) - len(shard))
            part = shard.read(offset, offset + len(ids) - filled)
            ids[filled : filled + len(part)] = part
            filled += len(part)
            shard_index += 1
        return ids

    def document_numbers(self, start: int, stop: int) -> NDArray[np.int64]:
        """Which document each position from start to stop belongs to."""
        self._require_within(start, stop)
        positions = np.arange(start, stop, dtype=np.uint64)
        return np.searchsorted(self.document_ends, positions, side="right").astype(np.int64)

    def document_range(self, document_index: int) -> tuple[int, int]:
        """Where a document's tokens lie in the stream, its separator included."""
        if not 0 <= document_index < self.num_documents:
            raise IndexError(f"document {document_index} of {self.num_documents}")
        start = self.document_ends[document_index - 1] if document_index else 0
        return int(start), int(self.document_ends[document_index])

    def document_ids(self, document_index: int) -> NDArray[np.uint32]:
        """The ids of a document's text, without separator; no text yields a separator's id."""
        ids = self.read(*self.document_range(document_index))
        eos_token_id = self.manifest.eos_token_id
        return ids if eos_token_id is None else ids[ids != eos_token_id]

    def require_hashes(self, spans: Sequence[tuple[int, int]]) -> None:
        """Re-hash the shards that hold these positions, after an opening that did not.

        Refuses: shards.hash-mismatch, files.io-failed.
        """
        edges = np.searchsorted(self._ends, [(start, stop - 1) for start, stop in spans], "right")
        touched = {shard for first, last in edges.tolist() for shard in range(first, last + 1)}
        for shard_index, shard in enumerate(self.manifest.shards):
            if shard_index in touched:
                path = self.directory / shard.file
                _require_hash(path, sha256_file(path), shard.sha256)
                index_path = self.directory / index_name(shard.file)
                _require_hash(index_path, sha256_file(index_path), shard.index_sha256)

    def _require_within(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"tokens {start} to {stop} of {self.num_tokens}")


def _require_no_foreign_files(directory: Path, manifest: Manifest) -> None:
    named = {shard.file for shard in manifest.shards}
    named |= {index_name(file) for file in named}
    empty = set(manifest.repaired.empty_files) if manifest.repaired else set[str]()
    with io_refusals(directory):
        foreign = sorted(
            entry.name
            for entry in directory.iterdir()
            if entry.suffix in (".bin", ".idx")
            and entry.name not in named
            and not (entry.name in empty and entry.stat().st_size == 0)
        )
    if foreign:
        raise Refusal(
            "shards.foreign-file",
            directory / foreign[0],
            found=f"{len(foreign)} shard files that the manifest does not name: {foreign[:4]}",
            expected="only the files of one encoding",
            fix="move them away; they belong to another encoding of this directory",
        )


def _verify(directory: Path, manifest: Manifest, num_threads: int, progress: Report) -> None:
    scan = _Scan(manifest, progress)
    paths = [directory / shard.file for shard in manifest.shards]
    scanned = by_threads(scan.shard, paths, num_threads=num_threads)
    num_separators = 0
    for shard, path, found in zip(manifest.shards, paths, scanned, strict=True):
        _require_hash(path, found.sha256, shard.sha256)
        index_path = directory / index_name(shard.file)
        _require_hash(index_path, sha256_file(index_path), shard.index_sha256)
        if found.largest_id >= manifest.vocab_size:
            raise damaged(
                "shards.id-range",
                path,
                f"id {found.largest_id}",
                f"ids below {manifest.vocab_size}",
            )
        num_separators += found.num_separators
    if manifest.eos_token_id is not None and num_separators != manifest.eos_token_count:
        raise damaged(
            "shards.separators",
            directory,
            f"{num_separators} times id {manifest.eos_token_id}",
            f"{manifest.eos_token_count}, as eos_policy {manifest.eos_policy} demands",
        )


@dataclass(frozen=True)
class _Scanned:
    """What the ids of one shard are."""

    sha256: str
    largest_id: int
    num_separators: int


class _Scan:
    """One pass over every id, by any number of threads."""

    def __init__(self, manifest: Manifest, progress: Report) -> None:
        self._eos_token_id = manifest.eos_token_id
        self._total_bytes = sum(shard.size_bytes for shard in manifest.shards)
        self._done_bytes = 0
        self._progress = progress
        self._lock = threading.Lock()

    def shard(self, path: Path) -> _Scanned:
        digest = hashlib.sha256()
        largest_id = num_separators = 0
        # Read, not mapped: mapped pages count as memory of the process until it ends.
        with io_refusals(path), path.open("rb", buffering=0) as source:
            while data := source.read(_CHUNK_BYTES):
                digest.update(data)
                ids = np.frombuffer(data, TOKEN_DTYPE)
                largest_id = max(largest_id, int(ids.max()))
                if self._eos_token_id is not None:
                    num_separators += int(np.count_nonzero(ids == self._eos_token_id))
                self._advance(ids.nbytes)
        return _Scanned(digest.hexdigest(), largest_id, num_separators)

    def _advance(self, num_bytes: int) -> None:
        with self._lock:
            self._done_bytes += num_bytes
            done = Progress("verifying shards", self._done_bytes, self._total_bytes, "bytes")
            self._progress(done)


def _require_hash(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise damaged("shards.hash-mismatch", path, f"sha256 {found}", f"sha256 {expected}")
