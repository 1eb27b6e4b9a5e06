"""JSON lines: one object per line, whose one field is a document's text.

A line that claims to be a document and is not stops the reading. Skipping it would lose text
that the user believes to be in the corpus, and a file damaged in one place is rarely damaged
in one place only.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn, cast

from apr.errors import DamagedFile
from apr.files import atomic_writer, io_refusals, parse_json, require_absent

# JSON may spell one byte of text with six characters, and carries other fields besides.
_LINE_LIMIT_BYTES = 64 << 20


def read_rows(path: Path, *, content_field: str) -> Iterator[tuple[int, str | None]]:
    """The number and the text of every line, in order; None for a blank line.

    Refuses: corpus.jsonl-damaged, files.not-found, files.io-failed.
    """
    with io_refusals(path), path.open("rb") as source:
        number = 0
        while line := source.readline(_LINE_LIMIT_BYTES + 1):
            number += 1
            place = f"{path}:{number}"
            if len(line) > _LINE_LIMIT_BYTES:
                _damaged(place, f"more than {_LINE_LIMIT_BYTES} bytes", "a shorter line")
            if not line.strip():
                yield number, None
                continue
            yield number, _text(line, place, content_field)


def write_rows(path: Path, rows: Iterable[tuple[str, str]], *, overwrite: bool = False) -> int:
    """Write (content, source) pairs, one object per line; return how many.

    Refuses: files.exists, files.io-failed.
    Writes: `path`, whole or not at all.
    """
    require_absent(path, overwrite=overwrite)
    num_rows = 0
    with atomic_writer(path) as target:
        for content, source in rows:
            line = json.dumps({"content": content, "source": source}, ensure_ascii=False)
            target.write(line.encode("utf-8") + b"\n")
            num_rows += 1
    return num_rows


def _text(line: bytes, place: str, content_field: str) -> str:
    try:
        row: object = parse_json(line)
    except ValueError as err:
        _damaged(place, str(err), "one JSON object in UTF-8", cause=err)
    if not isinstance(row, dict):
        _damaged(place, type(row).__name__, "a JSON object")
    fields = cast("dict[str, object]", row)
    if content_field not in fields:
        names = ", ".join(sorted(fields)[:8]) or "none"
        _damaged(
            place,
            f"no field {content_field!r}; fields: {names}",
            f"the text in {content_field!r}, or the right --content-field",
        )
    text = fields[content_field]
    if not isinstance(text, str):
        kind = "null" if text is None else type(text).__name__
        _damaged(place, f"{content_field!r} is {kind}", "a string")
    return text


def _damaged(place: str, found: str, expected: str, *, cause: Exception | None = None) -> NoReturn:
    raise DamagedFile(
        "corpus.jsonl-damaged",
        place,
        found=found,
        expected=expected,
        fix="repair or remove the line; no line is skipped silently",
    ) from cause
