"""One JSON row to its text, strictly: whatever is no document has a reason.

orjson refuses what is not JSON, not UTF-8, half a surrogate pair or NaN. What it lets through is a
repeated key, of which it keeps the last. The field that holds the text must stand there once.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn, cast

import orjson

# In a name of these characters, JSON has no spelling of a character but itself and \u00xx.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_ .-]+")
_NAMES_SHOWN = 8
_PLACE = re.compile(r": line 1 column (\d+) \(char \d+\)$")

Row = tuple[str, str | None, tuple[object, ...]]
"""A text, its group, and what stands in the extra fields: None where the row has no such field."""


class BadRow(Exception):
    """This line is no document: a reason, and what was found."""

    def __init__(self, reason: str, found: str) -> None:
        super().__init__(reason, found)
        self.reason = reason
        self.found = found


class RowParser:
    """Takes the text, and the group where rows have one, out of JSON objects.

    Extra fields are handed over as they are: whatever stands there makes no row a bad one.
    """

    def __init__(
        self,
        *,
        content_field: str,
        group_field: str | None = None,
        extra_fields: Sequence[str] = (),
    ) -> None:
        self._content_field = content_field
        self._group_field = group_field
        self._extra_fields = extra_fields
        names = [content_field] if group_field is None else [content_field, group_field]
        self._once = [_OnceIn(name) for name in names]

    def parse(self, line: bytes) -> Row:
        """What a row holds; BadRow when it is no document."""
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as err:
            _refuse_broken(line, str(err))
        if type(row) is not dict:
            raise BadRow("not_an_object", f"{type(cast('object', row)).__name__}, not an object")
        fields = cast("dict[str, Any]", row)
        text = fields.get(self._content_field)
        if type(text) is not str:
            _refuse_field(fields, self._content_field)
        for once in self._once:
            once.require(line)
        group = None if self._group_field is None else fields.get(self._group_field)
        if group is not None and type(group) is not str:
            raise BadRow("group_not_string", f"{self._group_field!r} is {type(group).__name__}")
        extras = tuple(map(fields.get, self._extra_fields)) if self._extra_fields else ()
        return text, group, extras


class _OnceIn:
    """Whether a field stands in a row once; the parsing that settles it is rarely needed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._quoted = b'"%s"' % name.encode("utf-8")
        spelled = "".join(rf"(?:{re.escape(each)}|\\u00(?i:{ord(each):02x}))" for each in name)
        is_plain = _PLAIN_NAME.fullmatch(name) is not None
        self._any_spelling = re.compile(f'"{spelled}"'.encode()) if is_plain else None

    def require(self, line: bytes) -> None:
        """Refuse a line that names the field more often; BadRow."""
        if self._may_repeat(line) and (num_found := self._count(line)) > 1:
            raise BadRow("field_repeated", f"{self._name!r} stands there {num_found} times")

    def _may_repeat(self, line: bytes) -> bool:
        if self._any_spelling is None or line.count(self._quoted) > 1:
            return True
        return b"\\u00" in line and len(self._any_spelling.findall(line)) > 1

    def _count(self, line: bytes) -> int:
        num_found = 0

        def outermost_is_last(pairs: list[tuple[str, Any]]) -> None:
            nonlocal num_found
            num_found = sum(key == self._name for key, _ in pairs)

        try:
            json.loads(line, object_pairs_hook=outermost_is_last, parse_int=str, parse_float=str)
        except RecursionError:
            raise BadRow("broken_json", "nested too deeply") from None
        return num_found


def _refuse_broken(line: bytes, message: str) -> NoReturn:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as err:
        raise BadRow("not_utf8", str(err)[-100:]) from None
    reason = "lone_surrogate" if "surrogate" in message else "broken_json"
    raise BadRow(reason, within_row(message))


def within_row(message: str) -> str:
    """What a reader of JSON says of one row, which to it is the first line of all."""
    return _PLACE.sub(r" at character \1", message)


def _refuse_field(fields: dict[str, Any], name: str) -> NoReturn:
    if name not in fields:
        names = ", ".join(sorted(fields)[:_NAMES_SHOWN]) or "none"
        raise BadRow("field_missing", f"no field {name!r}; fields: {names}")
    if fields[name] is None:
        raise BadRow("field_null", f"{name!r} is null")
    raise BadRow("field_not_string", f"{name!r} is {type(fields[name]).__name__}")
