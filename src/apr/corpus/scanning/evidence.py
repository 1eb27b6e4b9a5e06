"""Languages and licences of documents, by the names and the fields they came with."""

from typing import Any

from apr.corpus.document import Document
from apr.corpus.scanning.languages import extension_of, language_of
from apr.corpus.scanning.licences import (
    is_licence_file,
    licences_of_file,
    licences_of_row,
    spdx_expressions,
)
from apr.corpus.scanning.tally import Tally


class Evidence:
    """Counts documents by language and by licence.

    A document that names several licences is counted under each.
    """

    def __init__(self, path_field: str, license_field: str) -> None:
        self._fields = {"path": path_field, "license": license_field}
        self._num_with_field = {"path": 0, "license": 0}
        self._num_rows = 0
        self._extensions = Tally()
        self._without_path = Tally()
        self._licences = {"row": Tally(), "tag": Tally(), "file": Tally()}
        self._without_licence = Tally()

    def add(
        self, document: Document, path_value: object, license_value: object, *, size_bytes: int
    ) -> None:
        """Count one document; the values are what a row holds in its two fields."""
        path: str | None = document.source
        found: dict[str, list[str]] = {}
        if document.row is not None:
            path, found["row"] = self._read_fields(path_value, license_value)
        if path is None:
            self._without_path.add("", size_bytes)
        else:
            self._extensions.add(extension_of(path), size_bytes)
            if is_licence_file(path):
                found["file"] = licences_of_file(document.text)
        found["tag"] = spdx_expressions(document.text)
        for where, names in found.items():
            for name in names:
                self._licences[where].add(name, size_bytes)
        if not any(found.values()):
            self._without_licence.add("", size_bytes)

    def _read_fields(
        self, path_value: object, license_value: object
    ) -> tuple[str | None, list[str]]:
        path = path_value if isinstance(path_value, str) and path_value else None
        licences = licences_of_row(license_value)
        self._num_rows += 1
        self._num_with_field["path"] += path is not None
        self._num_with_field["license"] += bool(licences)
        return path, licences

    def languages(self) -> list[dict[str, Any]]:
        """By language, the most bytes first; None for an unknown extension, or for no path."""
        rows: dict[str, dict[str, Any]] = {}
        for extension, counts in self._extensions.ranked():
            language = language_of(extension)
            # What is in no language stands alone.
            row = rows.setdefault(
                language or f"{extension} ",
                {"language": language, "extensions": {}, "num_documents": 0, "text_bytes": 0},
            )
            row["extensions"][extension] = counts["num_documents"]
            row["num_documents"] += counts["num_documents"]
            row["text_bytes"] += counts["text_bytes"]
        for _, counts in self._without_path.ranked():
            rows[""] = {"language": None, "extensions": {}, **counts}
        return sorted(rows.values(), key=lambda row: -row["text_bytes"])

    def licences(self) -> dict[str, Any]:
        """By licence and where it was named: in a row, in a tag, or by a licence file."""
        found: list[dict[str, Any]] = [
            {"licence": name, "named_in": where, **counts}
            for where, tally in self._licences.items()
            for name, counts in tally.ranked()
        ]
        without: dict[str, Any] = {"num_documents": 0, "text_bytes": 0}
        for _, counts in self._without_licence.ranked():
            without = counts
        found.sort(key=lambda row: -row["text_bytes"])
        return {"found": found, "without": without}

    def fields(self) -> dict[str, dict[str, Any]]:
        """How many rows had a path and a licence in the fields that were looked at."""
        return {
            kind: {
                "name": name,
                "num_found": self._num_with_field[kind],
                "num_documents": self._num_rows,
            }
            for kind, name in self._fields.items()
        }
