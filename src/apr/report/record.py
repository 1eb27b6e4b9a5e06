"""A run's record as it was written, read with suspicion.

A missing key is normal, since a run may end before anything was measured; a key of the wrong
type means that the file is not a run record.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

from apr.errors import DamagedFile
from apr.files import io_refusals
from apr.train.run_record import RunRecord

_MOST_LEVELS = 12


@dataclass(frozen=True)
class Record:
    """One object of run.json; `key` says where in the file it stands."""

    path: Path
    key: str
    values: Mapping[str, Any]

    def child(self, name: str) -> "Record":
        """The object under a key; empty when it is null or absent."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict):
            self._refuse(name, "an object")
        return Record(self.path, self._below(name), cast(dict[str, Any], value or {}))

    def children(self, name: str) -> list["Record"]:
        """The objects of a list; empty when it is null or absent."""
        value = self.values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self._refuse(name, "a list of objects")
        items = cast(list[Any], value)
        for index, item in enumerate(items):
            if not isinstance(item, dict):
                self._refuse(f"{name}[{index}]", "an object", found=item)
        return [
            Record(self.path, f"{self._below(name)}[{index}]", item)
            for index, item in enumerate(items)
        ]

    def number(self, name: str) -> float | None:
        """A number, or None when it is null or absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._refuse(name, "a number")
        try:
            return float(value)
        except OverflowError:
            self._refuse(name, "a number within the range of a float")

    def text(self, name: str) -> str | None:
        """A string, or None when it is null or absent."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, str):
            self._refuse(name, "a string")
        return value

    def reason(self, name: str) -> str | None:
        """Why a number was not measured, where the run said so."""
        return self.text(f"{name}_reason")

    def _below(self, name: str) -> str:
        return f"{self.key}.{name}" if self.key else name

    def _refuse(self, name: str, expected: str, *, found: object = None) -> NoReturn:
        value = self.values.get(name) if found is None else found
        shown = repr(value) if not isinstance(value, dict | list) else type(value).__name__
        raise DamagedFile(
            "run.record-damaged",
            f"{self.path}, {self._below(name)}",
            found=shown[:200],
            expected=expected,
            fix="restore run.json as the run wrote it",
        )


def read_record(run_dir: Path) -> Record:
    """The record of a run directory.

    Refuses: run.not-found, run.record-damaged, files.io-failed.
    """
    with io_refusals(run_dir):
        data = RunRecord.load(run_dir).data
    path = run_dir / "run.json"
    if _num_levels(data) > _MOST_LEVELS:
        raise DamagedFile(
            "run.record-damaged",
            path,
            found=f"nested more than {_MOST_LEVELS} levels deep",
            expected="a run record",
            fix="restore run.json as the run wrote it",
        )
    return Record(path, "", data)


def config_in_force(record: Record) -> Record:
    """The options of a run by now: as it was started, and as resumes have changed them.

    Refuses: run.record-damaged.
    """
    values = dict(record.child("config").values)
    for resume in record.children("resumes"):
        for name, change in resume.child("config_changed").values.items():
            values[name] = change[-1] if isinstance(change, list) and change else change
    return Record(record.path, "config", values)


def _num_levels(value: Any) -> int:
    levels = 0
    layer = [value]
    while layer and levels <= _MOST_LEVELS:
        levels += 1
        layer = [child for item in layer for child in _children(item)]
    return levels


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(cast(dict[str, Any], value).values())
    return cast(list[Any], value) if isinstance(value, list) else []
