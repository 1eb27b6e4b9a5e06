"""What was left out of a corpus, and why: nothing is lost without being counted."""

_EXAMPLES_PER_REASON = 5


class Drops:
    """Counts of what was left out, by reason, with the first few places of each."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}

    def add(self, reason: str, source: str) -> None:
        """Count one more."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES_PER_REASON:
            examples.append(source)

    def describe(self) -> str:
        """All reasons in one line, the most frequent first."""
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{count} {reason}" for reason, count in ranked) or "nothing"
