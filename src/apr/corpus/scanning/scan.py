"""What lies in a pile of text, before anybody decides what to do with it.

Everything is read once through the reader that the other commands use, so that what they would
leave out or refuse is what is counted here. A bad row or an unreadable file stops nothing: telling
of it is what a scan is for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apr.corpus.certificate import DocumentSet
from apr.corpus.document import Document, place
from apr.corpus.reading.account import Account, LeftOut
from apr.corpus.reading.documents import list_files
from apr.corpus.reading.listed import ReadingProgress
from apr.corpus.reading.locations import location_text
from apr.corpus.reading.span_reader import SpanReader
from apr.corpus.reading.spans import WHOLE_FILES, cut_spans
from apr.corpus.reading.tree import CorpusFile
from apr.corpus.scanning.copies import CopyIndex
from apr.corpus.scanning.encodings import EncodingTally
from apr.corpus.scanning.evidence import Evidence
from apr.corpus.scanning.extremes import Extremes
from apr.corpus.scanning.split_hint import REPO_FIELD, GroupCount
from apr.errors import DamagedFile, IoFailed, PathNotFound, Refusal
from apr.progress import Report, silent

_PLACES_KEPT = 5
_REFUSALS_KEPT = 100


@dataclass(frozen=True)
class Scan:
    """What a scan found."""

    paths: tuple[str, ...]
    files: Sequence[CorpusFile]
    documents: DocumentSet
    num_characters: int
    account: Account
    left_out: list[dict[str, Any]]
    """Rows that became no documents by reason, each with its first places and, for a quarantined
    row, what was found at the first; the most frequent reason first."""
    unreadable: list[dict[str, Any]]
    """The first hundred files that could not be read to their end, with the refusal of each."""
    num_unreadable: int
    evidence: Evidence
    groups: GroupCount
    encodings: EncodingTally
    duplicates: dict[str, Any]
    extremes: Extremes

    def as_dict(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "paths": list(self.paths),
            "num_files": len(self.files),
            "size_bytes": sum(file.size_bytes for file in self.files),
            "formats": self.formats(),
            "num_rows": self.account.num_rows,
            **self.documents.model_dump(),
            "num_characters": self.num_characters,
            "num_quarantined": self.account.num_quarantined,
            "left_out": self.left_out,
            "num_unreadable": self.num_unreadable,
            "unreadable": self.unreadable,
            "stops": self.stops(),
            "languages": self.evidence.languages(),
            "licences": self.evidence.licences(),
            "fields": self.evidence.fields(),
            "encodings": self.encodings.as_dict()
            | {"num_byte_order_marks": self.account.num_byte_order_marks},
            "duplicates": self.duplicates,
            "worst": self.extremes.as_dict(),
            "account": self.account.as_dict(),
        }

    def formats(self) -> dict[str, dict[str, int]]:
        """How many files are read in which way, and their bytes on disk."""
        formats: dict[str, dict[str, int]] = {}
        for file in self.files:
            kind, compression = file.format
            name = f"{kind}.{compression}" if compression else kind
            counts = formats.setdefault(name, {"num_files": 0, "size_bytes": 0})
            counts["num_files"] += 1
            counts["size_bytes"] += file.size_bytes
        return dict(sorted(formats.items()))

    def stops(self) -> list[dict[str, Any]]:
        """What other commands would refuse this corpus for, as refusal ids."""
        stops: list[dict[str, Any]] = []
        for id in dict.fromkeys(each["id"] for each in self.unreadable):
            first = next(each for each in self.unreadable if each["id"] == id)
            stops.append({"id": id, "where": first["where"]})
        if self.account.num_quarantined:
            first = self.account.entries[0]
            stops.append(
                {
                    "id": "corpus.quarantined",
                    "where": place(first["source"], first["row"]),
                    "max_quarantined": self.account.num_quarantined,
                }
            )
        if not self.documents.num_documents:
            stops.append({"id": "corpus.empty", "where": self.files[0].location})
        return stops


def scan_corpus(
    paths: Sequence[Path | str],
    *,
    content_field: str = "content",
    path_field: str = "path",
    license_field: str = "license",
    exclude: Sequence[str] = (),
    num_shown: int = 5,
    progress: Report = silent,
) -> Scan:
    """Read files and trees of text once and tell what is in them.

    `path_field` and `license_field` are fields of a row, which need not have them. `num_shown`
    documents are kept of each kind that stands out.

    Refuses: as apr.corpus.reading.documents.list_files; corpus.no-pyarrow; and as SpanReader when
    not one file could be read.
    """
    scanner = _Scanner(num_shown, path_field=path_field, license_field=license_field)
    account = Account(record=scanner.leave_out)
    files = list_files(paths, drops=account, exclude=exclude)
    bar = ReadingProgress("scanning", files, {}, progress)
    for span in cut_spans(files, span_bytes=WHOLE_FILES):
        reader = SpanReader(
            span,
            content_field=content_field,
            account=account,
            extra_fields=(path_field, license_field, REPO_FIELD),
        )
        try:
            for document in reader:
                bar.add(document)
                scanner.add(document)
        except (DamagedFile, IoFailed, PathNotFound) as refusal:
            scanner.pass_over(refusal, span.location)
            if scanner.num_unreadable == len(files):
                raise
    bar.finish()
    account.require_balanced()
    return Scan(
        paths=tuple(path if isinstance(path, str) else location_text(path) for path in paths),
        files=files,
        documents=scanner.copies.as_set(),
        num_characters=scanner.num_characters,
        account=account,
        left_out=scanner.left_out(account),
        unreadable=scanner.unreadable,
        num_unreadable=scanner.num_unreadable,
        evidence=scanner.evidence,
        groups=scanner.groups,
        encodings=scanner.encodings,
        duplicates=scanner.copies.as_dict(num_shown),
        extremes=scanner.extremes,
    )


class _Scanner:
    """Gathers what is known of each document and of each row that is none."""

    def __init__(self, num_shown: int, *, path_field: str, license_field: str) -> None:
        self.num_characters = 0
        self.num_unreadable = 0
        self.unreadable: list[dict[str, Any]] = []
        self.evidence = Evidence(path_field, license_field)
        self.groups = GroupCount()
        self.encodings = EncodingTally()
        self.copies = CopyIndex()
        self.extremes = Extremes(num_shown)
        self._counts: dict[tuple[str, bool], int] = {}
        self._places: dict[tuple[str, bool], list[str]] = {}

    def add(self, document: Document) -> None:
        data = document.text.encode("utf-8")
        self.num_characters += len(document.text)
        path, licence, repo = document.extras or (None, None, None)
        self.evidence.add(document, path, licence, size_bytes=len(data))
        self.groups.add(document, repo)
        self.encodings.add(document.text)
        self.copies.add(document, data)
        self.extremes.add(document, data)

    def leave_out(self, left_out: LeftOut) -> None:
        key = (left_out.reason, left_out.is_quarantined)
        self._counts[key] = self._counts.get(key, 0) + 1
        places = self._places.setdefault(key, [])
        if len(places) < _PLACES_KEPT:
            places.append(place(left_out.source, left_out.row))
        if left_out.row is None and left_out.reason in ("not_utf8", "binary"):
            self.encodings.add_foreign(left_out.source, has_nul=left_out.reason == "binary")

    def pass_over(self, refusal: Refusal, location: str) -> None:
        self.num_unreadable += 1
        if len(self.unreadable) < _REFUSALS_KEPT:
            self.unreadable.append({"id": refusal.id, "where": location, "found": refusal.found})

    def left_out(self, account: Account) -> list[dict[str, Any]]:
        ranked = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        found = {entry["reason"]: entry["found"] for entry in reversed(account.entries)}
        return [
            {
                "reason": reason,
                "is_quarantined": is_quarantined,
                "num_rows": count,
                "places": self._places[reason, is_quarantined],
                # Of a reason that came after the entries an account keeps, only places are known.
                "found": found.get(reason) if is_quarantined else None,
            }
            for (reason, is_quarantined), count in ranked
        ]
