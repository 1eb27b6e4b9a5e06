"""The documents that stand out: the largest, the longest lines, the most and least regular text."""

import heapq
import zlib
from typing import Any

import numpy as np

from apr.corpus.document import Document

# As wide as the band that shards are judged by before training (apr.shards.degeneracy): base64
# shrinks 1.3 times, text and code 2 to 9, one line repeated 40 times and more.
RATIO_BAND = (1.5, 40.0)

# Of less, a compressed text is mostly the compressor's own tables; of more, it takes too long.
_SAMPLE_BYTES = 4096


class Extremes:
    """Keeps a few documents for each kind of extreme, whatever the number of documents."""

    def __init__(self, num_shown: int) -> None:
        self.num_measured = 0
        """Documents long enough for a compression ratio."""
        self.num_outside_band = 0
        self._largest = _Greatest(num_shown)
        self._longest_line = _Greatest(num_shown)
        self._most_compressible = _Greatest(num_shown)
        self._least_compressible = _Greatest(num_shown)

    def add(self, document: Document, data: bytes) -> None:
        """Look at a document; `data` is its text in UTF-8."""
        self._largest.add(len(data), document)
        if self._longest_line.admits(len(data)):
            self._longest_line.add(longest_line_bytes(data), document)
        ratio = compression_ratio(data)
        if ratio is not None:
            self.num_measured += 1
            self.num_outside_band += not RATIO_BAND[0] <= ratio <= RATIO_BAND[1]
            self._most_compressible.add(ratio, document)
            self._least_compressible.add(-ratio, document)

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON, the greatest first."""
        return {
            "largest": self._largest.ranked("size_bytes"),
            "longest_line": self._longest_line.ranked("line_bytes"),
            "most_compressible": self._most_compressible.ranked("ratio"),
            "least_compressible": self._least_compressible.ranked("ratio"),
            "compression": {
                "sample_bytes": _SAMPLE_BYTES,
                "band": list(RATIO_BAND),
                "num_measured": self.num_measured,
                "num_outside_band": self.num_outside_band,
            },
        }


class _Greatest:
    """The entries with the greatest values; of equal ones, the first that came."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[float, int, dict[str, Any]]] = []
        self._num_admitted = 0

    def admits(self, value: float) -> bool:
        if len(self._heap) < self._limit:
            return True
        return bool(self._heap) and value > self._heap[0][0]

    def add(self, value: float, document: Document) -> None:
        if not self.admits(value):
            return
        row = {} if document.row is None else {"row": document.row}
        self._num_admitted += 1
        entry = (value, -self._num_admitted, {"source": document.source} | row)
        heapq.heappush(self._heap, entry)
        if len(self._heap) > self._limit:
            heapq.heappop(self._heap)

    def ranked(self, name: str) -> list[dict[str, Any]]:
        entries = sorted(self._heap, key=lambda entry: entry[:2], reverse=True)
        return [{name: _shown(abs(value))} | place for value, _, place in entries]


def _shown(value: float) -> float:
    return value if isinstance(value, int) else round(value, 3)


def longest_line_bytes(data: bytes) -> int:
    r"""The longest line of a text in bytes; `\n`, `\r\n` and `\r` end one."""
    if b"\r" in data:
        data = data.replace(b"\r", b"\n")
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    if not len(ends):
        return len(data)
    within = int((ends[1:] - ends[:-1]).max(initial=1)) - 1
    return max(int(ends[0]), within, len(data) - int(ends[-1]) - 1)


def compression_ratio(data: bytes) -> float | None:
    """How many times zlib shrinks the middle of a text; None for one too short to tell."""
    if len(data) < _SAMPLE_BYTES:
        return None
    start = (len(data) - _SAMPLE_BYTES) // 2
    return _SAMPLE_BYTES / len(zlib.compress(data[start : start + _SAMPLE_BYTES]))
