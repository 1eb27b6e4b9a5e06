"""In what two or more runs differ: every option, every input by hash, machine and software."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from apr.report.record import Record

Kind = Literal["config", "input", "environment"]

ABSENT = "(absent)"
# Where a run is written, what it keeps and what it says at the end decide no number.
_NO_FACTORS = {"keep", "sample_prompts", "waive"}
_PLACES = {"dataset", "tokenizer", "val_shard", "init"}
_HASHES = ("fingerprint", "sha256")


@dataclass(frozen=True)
class FieldDifference:
    """One field with its value in every run, in the order of the runs.

    `is_factor` is false for what cannot move a loss: places of files whose hashes are compared
    apart, names of machines and versions.
    """

    field: str
    kind: Kind
    values: tuple[Any, ...]
    is_factor: bool

    def differs_between(self, one: int, other: int) -> bool:
        """Whether two of the runs have another value."""
        return _text(self.values[one]) != _text(self.values[other])


def field_differences(records: Sequence[Record]) -> list[FieldDifference]:
    """Every field that is not the same in all runs, options first.

    Refuses: run.record-damaged.
    """
    configs = [_config(record) for record in records]
    inputs = [_input_hashes(record) for record in records]
    machines = [_environment(record) for record in records]
    return [
        *_differing("config", configs),
        *_differing("input", inputs),
        *_differing("environment", machines),
    ]


def _config(record: Record) -> dict[str, Any]:
    """A run's options; of one that a resume has changed, every value and since when."""
    config = dict(record.child("config").values)
    for resume in record.children("resumes"):
        step = resume.number("step") or 0
        for name, change in resume.child("config_changed").values.items():
            now = change[-1] if isinstance(change, list) and change else change
            config[name] = f"{config.get(name)}, then {now} after step {step:g}"
    config.pop("run_dir", None)
    return config


def factors_between(
    differences: Sequence[FieldDifference], one: int, other: int
) -> list[FieldDifference]:
    """What may move the loss and is not the same in two of the runs."""
    return [
        difference
        for difference in differences
        if difference.is_factor and difference.differs_between(one, other)
    ]


def _differing(kind: Kind, sides: Sequence[dict[str, Any]]) -> list[FieldDifference]:
    names = list(dict.fromkeys(name for side in sides for name in side))
    found: list[FieldDifference] = []
    for name in names:
        values = tuple(side.get(name, ABSENT) for side in sides)
        if len({_text(value) for value in values}) > 1:
            found.append(FieldDifference(name, kind, values, _is_factor(kind, name, values)))
    return found


def _is_factor(kind: Kind, name: str, values: Sequence[Any]) -> bool:
    if kind == "environment" or name in _NO_FACTORS:
        return False
    # A mixture says more than a place: how much of each is in it.
    is_place = all(value is None or isinstance(value, str) for value in values)
    return not (kind == "config" and name in _PLACES and is_place)


def _input_hashes(record: Record) -> dict[str, Any]:
    """What every input held, by hash; the held-out set is compared apart, as it was read."""
    hashes: dict[str, Any] = {}
    for role, value in record.child("inputs").values.items():
        items = cast(list[Any], value) if isinstance(value, list) else [value]
        if role != "val":
            hashes[f"inputs.{role}"] = [_hash(item) for item in items]
    return hashes


def _hash(item: Any) -> Any:
    """The name of an input's content: what it is made of before how it is written."""
    if not isinstance(item, dict):
        return item
    values = cast(dict[str, Any], item)
    return next((values[key] for key in _HASHES if values.get(key) is not None), None)


def _environment(record: Record) -> dict[str, Any]:
    machine = {
        f"environment.{name}": value for name, value in record.child("environment").values.items()
    }
    return {"apr_version": record.values.get("apr_version"), **machine}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
