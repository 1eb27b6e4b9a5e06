"""One JSON row to its text: what is let through, and why the others are not."""

import json
import sys
import time

import pytest

from apr.corpus.reading.rows import BadRow, RowParser


def parse(line: bytes | str, field: str = "content") -> str:
    data = line.encode() if isinstance(line, str) else line
    return RowParser(content_field=field).parse(data)[0]


BAD = {
    "broken_json": [
        b'{"content": "a"',
        b"",
        b"nonsense",
        b'{"content": "a"} {}',
        b"{'content': 1}",
        b'{"content": "a", "n": NaN}',
        b'{"content": "a", "n": -Infinity}',
        b'{"content": "a", "n": 1e400000}',
        b'{"content": "a\tb"}',
        b'{"content": "\\x41"}',
        b'\xef\xbb\xbf{"content": "a"}',
        b'{"content": ' + b"[" * 5000,
    ],
    "not_an_object": [b'["content"]', b'"content"', b"7", b"null"],
    "field_missing": [b"{}", b'{"text": "a"}', b'{"Content": "a"}', b'{"a": {"content": "b"}}'],
    "field_null": [b'{"content": null}'],
    "field_not_string": [b'{"content": 7}', b'{"content": ["a"]}', b'{"content": {"a": "b"}}'],
    "field_repeated": [
        b'{"content": "a", "content": "b"}',
        b'{"content": "a", "content": "a"}',
        b'{"content":"a","c\\u006fntent":"b"}',
        b'{"\\u0063\\u006F\\u006ete\\u006et":1,"content":"b"}',
        b'{"content": "a", "x": {"content": 1}, "content": "b", "y": {"content": 2}}',
    ],
    "not_utf8": [
        b'{"content": "\xff"}',
        b'{"content": "\xed\xa0\x80"}',
        b'{"content": "a", "b": "\xe9"}',
    ],
    "lone_surrogate": [
        b'{"content": "\\ud800"}',
        b'{"content": "\\udc00\\ud800"}',
        b'{"content": "\\uD83Dx"}',
    ],
}


@pytest.mark.parametrize(
    ("reason", "line"), [(reason, line) for reason, lines in BAD.items() for line in lines]
)
def test_what_is_no_document_has_a_reason(reason: str, line: bytes) -> None:
    with pytest.raises(BadRow) as fault:
        parse(line)
    assert fault.value.reason == reason
    assert fault.value.found


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('{"content": "a"}', "a"),
        (' {"n": 1e300, "content": "a"} \r', "a"),
        ('{"content": "a", "x": {"content": 1}, "y": [{"content": 2, "content": 3}]}', "a"),
        ('{"content": "content", "x": "\\"content\\": \\"content\\""}', "content"),
        ('{"c\\u006fntent": "\\u0063ontent \\u0000"}', "content \0"),
        ('{"content": "\\ud83d\\ude00 \\u2028 é"}', "\U0001f600 \u2028 é"),
        ('{"content": "\ufeffa"}', "\ufeffa"),
        ('{"content": "a", "x": 1, "x": 2}', "a"),
    ],
)
def test_what_looks_like_a_fault_and_is_none_passes(line: str, text: str) -> None:
    assert parse(line) == text


@pytest.mark.parametrize("field", ["text", "a/b", 'q"q', "é", "a\\b", "naïve", "", "a.b c-d", "\n"])
def test_a_field_of_any_name_stands_once(field: str) -> None:
    assert parse(json.dumps({field: "a", "x": {field: 1}}), field) == "a"
    for spelled in (json.dumps(field), json.dumps(field, ensure_ascii=False)):
        escaped = '"' + "".join(f"\\u{ord(each):04x}" for each in field) + '"'
        with pytest.raises(BadRow) as fault:
            parse(f"{{{spelled}: 1, {escaped}: {json.dumps('b')}}}", field)
        assert fault.value.reason == "field_repeated"


def test_a_group_is_text_or_absent() -> None:
    parser = RowParser(content_field="content", group_field="group")
    assert parser.parse(b'{"content": "a", "group": "g"}') == ("a", "g", ())
    assert parser.parse(b'{"content": "a", "group": null}') == ("a", None, ())
    assert parser.parse(b'{"content": "a"}') == ("a", None, ())
    for line, reason in (
        (b'{"content": "a", "group": 7}', "group_not_string"),
        (b'{"content": "a", "group": "g", "group": "h"}', "field_repeated"),
    ):
        with pytest.raises(BadRow) as fault:
            parser.parse(line)
        assert fault.value.reason == reason


def test_a_row_nested_too_deeply_to_be_compared_is_bad() -> None:
    nested = b'{"content": "a", "x": {"content": 1}, "y": ' + b"[" * 1000 + b"]" * 1000 + b"}"
    if sys.version_info >= (3, 12):
        # Its json goes deeper than the 1,024 levels of whatever read the row before.
        assert parse(nested) == "a"
        return
    with pytest.raises(BadRow) as fault:
        parse(nested)
    assert fault.value.reason == "broken_json"


def test_a_long_row_of_what_looks_like_the_field_is_read_in_time() -> None:
    line = json.dumps({"content": '\\u0063"conten' * 200_000, "x": 1}).encode()
    started_s = time.process_time()
    assert len(parse(line)) == 13 * 200_000
    assert time.process_time() - started_s < 2
