"""What one task reads: spans cut at line starts, the same ones every time."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from apr.corpus.reading.account import Account
from apr.corpus.reading.documents import Document, list_files
from apr.corpus.reading.span_reader import SpanReader
from apr.corpus.reading.spans import Span, cut_spans, span_sha256
from apr.errors import DamagedFile, UsageRefusal


def spans_of(*paths: Path, span_bytes: int = 1 << 30) -> list[Span]:
    return list(cut_spans(list_files(paths, drops=Account()), span_bytes=span_bytes))


def read(span: Span, account: Account | None = None, **options: str) -> list[Document]:
    account = account or Account()
    documents = list(SpanReader(span, account=account, **options))
    account.require_balanced()
    return documents


def rows(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"content": text}) + "\n" for text in texts))
    return path


@pytest.mark.parametrize("span_bytes", [1, 2, 19, 20, 21, 39, 40, 41, 60, 10**9])
def test_spans_hold_whole_lines_and_all_of_them(tmp_path: Path, span_bytes: int) -> None:
    path = rows(tmp_path / "a.jsonl", [f"text {number:02}" for number in range(20)])
    whole = read(*spans_of(path))
    spans = spans_of(path, span_bytes=span_bytes)
    assert [span.start for span in spans] == [0, *(span.stop for span in spans[:-1])]
    assert spans[-1].stop == path.stat().st_size
    assert all(span.num_bytes >= min(span_bytes, 24) for span in spans[:-1])
    assert [document for span in spans for document in read(span)] == whole
    assert [document.row for document in whole] == list(range(1, 21))
    data = path.read_bytes()
    for span in spans:
        reader = SpanReader(span, account=Account())
        assert list(reader)
        expected = hashlib.sha256(data[span.start : span.stop]).hexdigest()
        assert reader.sha256 == span_sha256(span) == expected


def test_a_line_longer_than_a_span_stays_whole(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", ["a", "b" * (3 << 20), "c", "d"])
    spans = spans_of(path, span_bytes=100)
    assert [[len(document.text) for document in read(span)] for span in spans] == [
        [1, 3 << 20],
        [1, 1],
    ]


def test_a_last_line_without_an_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"content": "a"}\n\n{"content": "b"}')
    spans = spans_of(path, span_bytes=17)
    assert [(document.text, document.row) for span in spans for document in read(span)] == [
        ("a", 1),
        ("b", 3),
    ]


def test_an_empty_file_is_a_span_without_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    (span,) = spans_of(tmp_path / "a.jsonl")
    account = Account()
    assert read(span, account) == []
    assert (account.num_rows, span_sha256(span)) == (0, hashlib.sha256().hexdigest())


@pytest.mark.parametrize("name", [b"\xff.py", b"a\\xff.py", b"a\\\\.py", "\u00e9.py".encode()])
def test_any_name_survives_json(tmp_path: Path, name: bytes) -> None:
    (tmp_path / os.fsdecode(name)).write_text("x = 1")
    (tmp_path / "b.py").write_text("y = 1")
    spans = spans_of(tmp_path)
    again = [Span(**json.loads(json.dumps(asdict(span), ensure_ascii=False))) for span in spans]
    assert again == spans
    assert {document.text for span in again for document in read(span)} == {"x = 1", "y = 1"}
    assert all(span.location.encode("utf-8") and span.group.encode("utf-8") for span in again)


def test_two_names_that_are_no_text_stay_two(tmp_path: Path) -> None:
    for name in (b"\xff.py", b"\xfe.py", b"\\xff.py"):
        (tmp_path / os.fsdecode(name)).write_text("x")
    assert len({span.location for span in spans_of(tmp_path)}) == 3


@pytest.mark.parametrize("data", [b'{"content": "a"}\n', b'{"content": "a"}\n' * 3])
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_a_file_that_changed_its_size_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(b'{"content": "a"}\n' * 2)
    (span,) = spans_of(path)
    path.write_bytes(data)
    for use in (lambda: read(span), lambda: span_sha256(span)):
        with pytest.raises(DamagedFile) as refused:
            use()
        assert refused.value.id == "corpus.input-changed"
        assert refused.value.where == str(path)


def test_a_changed_byte_changes_the_hash(tmp_path: Path) -> None:
    path = rows(tmp_path / "a.jsonl", ["a", "b", "c"])
    spans = spans_of(path, span_bytes=20)
    before = [span_sha256(span) for span in spans]
    rows(path, ["a", "b", "x"])
    assert [span_sha256(span) == hash for span, hash in zip(spans, before, strict=True)] == [
        True,
        False,
    ]


def test_a_group_field_says_what_belongs_together(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = ['{"content": "a", "group": "g"}', '{"content": "b"}', '{"content": "c", "group": 7}']
    path.write_text("\n".join(lines))
    (span,) = spans_of(path)
    account = Account()
    documents = read(span, account, group_field="group")
    assert [document.group for document in documents] == ["g", "a.jsonl:2"]
    assert account.quarantined == {"group_not_string": 1}
    assert [document.group for document in read(span)] == [f"a.jsonl:{row}" for row in (1, 2, 3)]


def test_spans_of_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageRefusal) as refused:
        spans_of(rows(tmp_path / "a.jsonl", ["a"]), span_bytes=0)
    assert refused.value.id == "corpus.span-bytes"
