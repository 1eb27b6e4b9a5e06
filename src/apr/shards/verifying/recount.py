"""Everything a manifest says about its ids, counted again from the ids alone.

One pass in bounded memory, by other code than the encoder's: what counted wrong once would count
wrong twice.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apr.progress import Progress, Report, silent
from apr.shards.reader import ShardReader

_CHUNK_TOKENS = 1 << 22
# No vocabulary is larger; ids above take part in no table, whatever a manifest allows.
_MAX_IDS = 1 << 22


@dataclass(frozen=True)
class Recount:
    """What the ids of a directory are, separators apart."""

    shard_sha256: list[str]
    largest_id: int
    """Separators included."""
    num_separators: int
    num_misplaced_separators: int
    """Separators that no document ends with, and documents that should end with one and do not."""
    longest_run: int
    counts: NDArray[np.int64]
    """How often each id occurs, separators left out."""

    @property
    def num_text_tokens(self) -> int:
        """Ids that are no separator."""
        return int(self.counts.sum())

    @property
    def largest_text_id(self) -> int:
        """The largest id that is no separator."""
        return int(np.flatnonzero(self.counts)[-1]) if self.counts.any() else 0

    def count_of(self, token_id: int | None) -> int:
        """How often one id occurs; never, when there is no such id."""
        if token_id is None or token_id >= len(self.counts):
            return 0
        return int(self.counts[token_id])

    @property
    def entropy_bits(self) -> float:
        """Entropy of the frequencies of ids."""
        shares = self.counts[self.counts > 0] / max(1, self.num_text_tokens)
        return float(abs((shares * np.log2(shares)).sum()))


def recount(
    reader: ShardReader, *, chunk_tokens: int = _CHUNK_TOKENS, progress: Report = silent
) -> Recount:
    """Read every id of a directory once, `chunk_tokens` at a time."""
    state = _State(reader)
    hashes: list[str] = []
    start = 0
    for shard in reader.manifest.shards:
        digest = hashlib.sha256()
        stop = start + shard.num_tokens
        for at in range(start, stop, chunk_tokens):
            ids = reader.read(at, min(at + chunk_tokens, stop))
            digest.update(ids.astype("<u4", copy=False).data)
            state.add(ids, at)
            progress(Progress("counting", at + len(ids), reader.num_tokens, "tokens"))
        hashes.append(digest.hexdigest())
        start = stop
    return state.result(hashes)


class _State:
    """The counts so far, and the run that the last chunk ended with."""

    def __init__(self, reader: ShardReader) -> None:
        self._ends = reader.document_ends
        self._eos_token_id = reader.manifest.eos_token_id
        self._eos_policy = reader.manifest.eos_policy
        self._largest_id = 0
        self._num_separators = 0
        self._num_misplaced = 0
        self._longest_run = 0
        self._counts = np.zeros(min(reader.manifest.vocab_size, _MAX_IDS), np.int64)
        self._run_id = -1
        self._run_length = 0

    def add(self, ids: NDArray[np.uint32], at: int) -> None:
        """Count one chunk that begins at position `at` of the stream."""
        self._largest_id = max(self._largest_id, int(ids.max()))
        first = int(np.searchsorted(self._ends, at, side="right"))
        stop = int(np.searchsorted(self._ends, at + len(ids), side="right"))
        last_places = (self._ends[first:stop] - np.uint64(at + 1)).astype(np.int64)
        is_separator = np.zeros(len(ids), np.bool_)
        if self._eos_token_id is not None:
            is_separator = ids == self._eos_token_id
        self._count_separators(is_separator, last_places, ends_with_last=stop == len(self._ends))
        text_ids = ids[~is_separator & (ids < len(self._counts))]
        self._counts += np.bincount(text_ids, minlength=len(self._counts))
        begins_document = np.zeros(len(ids) + 1, np.bool_)
        begins_document[last_places + 1] = True
        begins_document[0] = at == 0 or (first > 0 and int(self._ends[first - 1]) == at)
        self._count_runs(ids, begins_document[:-1], is_separator)

    def result(self, shard_sha256: list[str]) -> Recount:
        """All counts."""
        return Recount(
            shard_sha256=shard_sha256,
            largest_id=self._largest_id,
            num_separators=self._num_separators,
            num_misplaced_separators=self._num_misplaced,
            longest_run=self._longest_run,
            counts=self._counts,
        )

    def _count_separators(
        self,
        is_separator: NDArray[np.bool_],
        last_places: NDArray[np.int64],
        *,
        ends_with_last: bool,
    ) -> None:
        wanted = np.zeros(len(is_separator), np.bool_)
        if self._eos_policy != "none":
            wanted[last_places] = True
        if self._eos_policy == "between" and ends_with_last:
            wanted[last_places[-1]] = False
        self._num_separators += int(is_separator.sum())
        self._num_misplaced += int((is_separator != wanted).sum())

    def _count_runs(
        self,
        ids: NDArray[np.uint32],
        begins_document: NDArray[np.bool_],
        is_separator: NDArray[np.bool_],
    ) -> None:
        begins_run = begins_document.copy()
        begins_run[1:] |= ids[1:] != ids[:-1]
        begins_run[0] |= int(ids[0]) != self._run_id
        places = np.flatnonzero(begins_run)
        lengths = np.diff(places, append=len(ids))
        head = int(places[0]) if len(places) else len(ids)
        self._run_length += head
        if head and not is_separator[0]:
            self._longest_run = max(self._longest_run, self._run_length)
        if len(places):
            of_text = lengths[~is_separator[places]]
            self._longest_run = max(self._longest_run, int(of_text.max(initial=0)))
            self._run_id, self._run_length = int(ids[-1]), int(lengths[-1])
