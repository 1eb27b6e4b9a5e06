"""Documents and their bytes counted by a name that may come from strangers."""

from typing import Any

# As many as any real corpus has, and no more than memory holds when each row makes one up.
_MOST_NAMES = 10_000
OTHERS = "(others)"


class Tally:
    """Counts by name; names past the first ten thousand are counted together."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}

    def add(self, name: str, size_bytes: int) -> None:
        """Count one document."""
        if name not in self._counts and len(self._counts) >= _MOST_NAMES:
            name = OTHERS
        num_documents, text_bytes = self._counts.get(name, (0, 0))
        self._counts[name] = (num_documents + 1, text_bytes + size_bytes)

    def ranked(self) -> list[tuple[str, dict[str, Any]]]:
        """Names with their counts, the most bytes first."""
        ranked = sorted(self._counts.items(), key=lambda item: (-item[1][1], item[0]))
        return [
            (name, {"num_documents": num_documents, "text_bytes": text_bytes})
            for name, (num_documents, text_bytes) in ranked
        ]
