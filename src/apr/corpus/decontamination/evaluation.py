"""Evaluation items: what a model is asked and must not have read.

HumanEval and MBPP are read in the shape they are published in. Of other JSON objects every text is
part of the item; of anything else, the whole text is one item.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

from apr.corpus.reading.account import Account
from apr.corpus.reading.blocks import RawBlocks
from apr.corpus.reading.compressed import DamagedStream, unpack
from apr.corpus.reading.documents import list_files, read_files
from apr.corpus.reading.lines import OverlongLine, split_lines
from apr.corpus.reading.rows import within_row
from apr.corpus.reading.tree import CorpusFile
from apr.errors import DamagedFile
from apr.files import parse_json, read_bytes

_LIMIT_BYTES = 256 << 20
# The fields of published sets that hold text to recognise; all must be there.
_SHAPES = (
    ("prompt", "canonical_solution", "test"),
    ("text", "code", "test_list"),
    ("prompt", "code", "test_list"),
)
_NAMES = ("task_id", "id", "name", "question_id")


@dataclass(frozen=True)
class Item:
    """One task of an evaluation set: its texts by what they are."""

    name: str
    parts: dict[str, str]


def read_items(file: CorpusFile, *, content_field: str) -> Iterator[Item]:
    """The items of one file.

    Refuses: corpus.evaluation-damaged, and for texts and tables as read_files.
    """
    kind, _ = file.format
    if kind == "jsonl":
        yield from _read_lines(file)
    elif kind == "text" and file.location.endswith(".json"):
        yield from _read_list(file.path)
    else:
        for document in read_files([file], content_field=content_field, drops=Account()):
            yield Item(document.place, {"text": document.text})


def list_evaluation_files(paths: Sequence[Path | str]) -> list[CorpusFile]:
    """The files that hold evaluation items.

    Refuses: as list_files.
    """
    return list_files(paths, drops=Account())


def _read_lines(file: CorpusFile) -> Iterator[Item]:
    blocks = RawBlocks(file.location, start=0, stop=file.size_bytes, size_bytes=file.size_bytes)
    number = 0
    try:
        for lines in split_lines(unpack(blocks, file.format[1])):
            if isinstance(lines, OverlongLine):
                _refuse(file.location, f"a line of {lines.size_bytes} bytes")
            for line in lines:
                number += 1
                if line.strip():
                    place = f"{file.location}:{number}"
                    yield _item(_parse(line, place), place, f"row {number}")
    except DamagedStream as fault:
        _refuse(file.location, fault.found, fault)


def _read_list(path: Path) -> Iterator[Item]:
    data = read_bytes(
        path, limit_bytes=_LIMIT_BYTES, id="corpus.evaluation-damaged", what="evaluation items"
    )
    value = _parse(data, str(path))
    if not isinstance(value, list):
        _refuse(str(path), f"{type(value).__name__}, not a list of objects")
    for number, each in enumerate(cast("list[Any]", value), start=1):
        yield _item(each, f"{path}, item {number}", f"item {number}")


def _parse(data: bytes, place: str) -> Any:
    try:
        return parse_json(data)
    except ValueError as err:
        _refuse(place, within_row(str(err)), err)


def _item(value: Any, place: str, fallback: str) -> Item:
    if not isinstance(value, dict):
        _refuse(place, f"{type(value).__name__}, not an object")
    fields = cast("dict[str, Any]", value)
    wanted = next((shape for shape in _SHAPES if all(key in fields for key in shape)), None)
    parts = {key: _text(fields[key]) for key in (fields if wanted is None else wanted)}
    name = next((str(fields[key]) for key in _NAMES if key in fields), fallback)
    return Item(name, {key: text for key, text in parts.items() if text.strip()})


def _text(value: Any) -> str:
    """A text, or a list of texts one below the other; nothing for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        lines = [each for each in cast("list[Any]", value) if isinstance(each, str)]
        return "\n".join(lines)
    return ""


def _refuse(where: str, found: str, cause: Exception | None = None) -> NoReturn:
    raise DamagedFile(
        "corpus.evaluation-damaged",
        where,
        found=found,
        expected="one JSON object per line, as HumanEval and MBPP are published",
        fix="download the evaluation set again",
    ) from cause
