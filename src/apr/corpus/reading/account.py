"""What became of every row: a document, a named drop, or a quarantined row; nothing else.

The reader counts rows as it meets them and fates as it decides them. The two counts are kept
apart, so that a row that was lost between them shows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apr.corpus.document import place
from apr.errors import DamagedFile, Refusal

_EXAMPLES_PER_REASON = 5
_ENTRIES_KEPT = 1000
_FOUND_CHARACTERS = 300

REASONS_OF_A_REST = ("truncated", "damaged")
"""One such row stands for all of a file that could not be read."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One row that became no document."""

    source: str
    row: int | None
    reason: str
    is_quarantined: bool
    """Whether it claimed to be a document and was none, rather than dropped by a rule."""


class Account:
    """Counts of what was read and what was left out, by reason, with the first few places.

    `record` is told of each row that is left out, in the order of the input and, as documents
    are yielded one by one, between the documents it lies between.
    """

    def __init__(self, *, record: Callable[[LeftOut], None] | None = None) -> None:
        self.num_rows = 0
        self.num_documents = 0
        self.num_byte_order_marks = 0
        """Files that begin with one: the mark is skipped in JSON lines and kept in a text."""
        self.drops: dict[str, int] = {}
        self.quarantined: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}
        """The first few places by reason of a drop."""
        self.entries: list[dict[str, Any]] = []
        """The first thousand quarantined rows: reason, source, row, offset and what was found."""
        self._record = record

    @property
    def num_quarantined(self) -> int:
        """Rows that claimed to be documents and were none."""
        return sum(self.quarantined.values())

    def drop(self, reason: str, source: str, row: int | None = None) -> None:
        """Leave out a row by a rule that has a name."""
        _count(self.drops, reason)
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES_PER_REASON:
            examples.append(place(source, row))
        if self._record is not None:
            self._record(LeftOut(source, row, reason, is_quarantined=False))

    def quarantine(
        self, reason: str, source: str, row: int | None = None, *, offset: int | None, found: str
    ) -> None:
        """Set aside a row that claims to be a document and is none.

        `offset` counts the bytes before it in the file, in a compressed file the unpacked bytes.
        """
        _count(self.quarantined, reason)
        if len(self.entries) < _ENTRIES_KEPT:
            found = found[:_FOUND_CHARACTERS]
            self.entries.append(
                {"reason": reason, "source": source, "row": row, "offset": offset, "found": found}
            )
        if self._record is not None:
            self._record(LeftOut(source, row, reason, is_quarantined=True))

    def leave_out(self, reason: str, source: str) -> None:
        """Drop something that was seen and never opened, such as a link."""
        self.num_rows += 1
        self.drop(reason, source)

    def withdraw(self, reason: str, source: str, row: int | None = None) -> None:
        """Drop what was counted as a document before."""
        self.num_documents -= 1
        self.drop(reason, source, row)

    def merge(self, other: "Account") -> None:
        """Add the counts of input that comes after what this account holds."""
        self.num_rows += other.num_rows
        self.num_documents += other.num_documents
        self.num_byte_order_marks += other.num_byte_order_marks
        for mine, theirs in (self.drops, other.drops), (self.quarantined, other.quarantined):
            for reason, count in theirs.items():
                mine[reason] = mine.get(reason, 0) + count
        for reason, places in other.examples.items():
            examples = self.examples.setdefault(reason, [])
            examples += places[: _EXAMPLES_PER_REASON - len(examples)]
        self.entries += other.entries[: _ENTRIES_KEPT - len(self.entries)]

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Account":
        """The account that `as_dict` wrote."""
        account = cls()
        vars(account).update(fields)
        return account

    def describe(self) -> str:
        """What was left out, by reason in one line, the most frequent first."""
        quarantined = {"quarantined": self.num_quarantined} if self.quarantined else {}
        return _ranked(self.drops | quarantined)

    def require_balanced(self) -> None:
        """Refuse when a row has no fate or two.

        Refuses: corpus.rows-lost.
        """
        num_dropped = sum(self.drops.values())
        found = self.num_documents + num_dropped + self.num_quarantined
        if self.num_rows != found:
            raise Refusal(
                "corpus.rows-lost",
                "the rows of the corpus",
                found=f"{self.num_documents} documents + {num_dropped} dropped "
                f"+ {self.num_quarantined} quarantined = {found}",
                expected=f"{self.num_rows} rows read",
                fix="this is a bug in apr; please report it with the input that shows it",
            )

    def require_quarantined_at_most(
        self, max_quarantined: int, *, listed_in: Path | None = None
    ) -> None:
        """Refuse when more rows were set aside than the user allows.

        `listed_in` is the file that shows them.

        Refuses: corpus.quarantined.
        """
        if self.num_quarantined <= max_quarantined:
            return
        first = self.entries[0]
        listed = "" if listed_in is None else f" (listed in {listed_in})"
        # Nobody knows how many rows are behind the point where a file cannot be read further.
        num_unread = sum(self.quarantined.get(reason, 0) for reason in REASONS_OF_A_REST)
        unread = f"; {num_unread} of them stand for all that is left of a file" * (num_unread > 0)
        repair = "fetch those files again, repair the rows" if num_unread else "repair the rows"
        raise DamagedFile(
            "corpus.quarantined",
            place(first["source"], first["row"]),
            found=f"{self.num_quarantined} of {self.num_rows} rows are no documents "
            f"({_ranked(self.quarantined)}){unread}; the first is this one: {first['found']}",
            expected=f"at most {max_quarantined}",
            fix=f"{repair}{listed}, or allow them: --max-quarantined {self.num_quarantined}",
        )


def _count(counts: dict[str, int], reason: str) -> None:
    counts[reason] = counts.get(reason, 0) + 1


def _ranked(counts: Mapping[str, int]) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {reason}" for reason, count in ranked) or "nothing"
