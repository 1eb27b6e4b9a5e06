"""Parquet by row groups: the rows that are there, in order, and what is wrong with the others."""

import errno
import hashlib
import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from apr.corpus.reading.account import Account
from apr.corpus.reading.documents import Document, list_files
from apr.corpus.reading.parquet import read_cells
from apr.corpus.reading.span_reader import SpanReader
from apr.corpus.reading.spans import Span, cut_spans, span_sha256
from apr.errors import DamagedFile, IoFailed

TEXTS = [f"text {number:03} " + "x" * 200 for number in range(300)]


def write(path: Path, *, row_group_size: int = 50, **columns: Any) -> Path:
    table = pyarrow.table(columns)
    pyarrow.parquet.write_table(table, path, row_group_size=row_group_size, compression="none")
    return path


def spans_of(path: Path, span_bytes: int = 1 << 30) -> list[Span]:
    return list(cut_spans(list_files([path], drops=Account()), span_bytes=span_bytes))


def read(path: Path, **options: Any) -> tuple[list[Document], Account]:
    account = Account()
    documents = [
        document
        for span in spans_of(path)
        for document in SpanReader(span, account=account, **options)
    ]
    account.require_balanced()
    return documents, account


@pytest.mark.parametrize("span_bytes", [1, 20_000, 30_000, 10**9])
def test_spans_are_row_groups_and_tile_the_file(tmp_path: Path, span_bytes: int) -> None:
    path = write(tmp_path / "a.parquet", content=TEXTS, n=list(range(300)))
    spans = spans_of(path, span_bytes)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert [span.start for span in spans] == [0, *(span.stop for span in spans[:-1])]
    assert spans[-1].stop == path.stat().st_size
    assert len(spans) == {1: 6, 20_000: 3, 30_000: 2, 10**9: 1}[span_bytes]
    documents: list[Document] = []
    for span in spans:
        reader = SpanReader(Span(**json.loads(json.dumps(asdict(span)))), account=Account())
        documents += reader
        assert reader.sha256 == span_sha256(span) == sha256
    assert [document.text for document in documents] == TEXTS
    assert [document.row for document in documents] == list(range(1, 301))
    assert documents[-1].group == "a.parquet:300"


def test_only_the_named_columns_are_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet", code=["a", "b"], content=[1, 2], repo=["r", None], x=["y", "z"]
    )
    documents, _ = read(path, content_field="code", group_field="repo")
    assert documents == [
        Document("a", str(path), "r", 1),
        Document("b", str(path), "a.parquet:2", 2),
    ]


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.string(),
        pyarrow.large_string(),
        pyarrow.string_view(),
        pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
    ],
    ids=str,
)
def test_text_of_any_arrow_type_is_text(tmp_path: Path, kind: Any) -> None:
    column = pyarrow.array(["a", None, "été", "a"]).cast(kind)
    documents, account = read(write(tmp_path / "a.parquet", content=column))
    assert [document.text for document in documents] == ["a", "été", "a"]
    assert account.quarantined == {"field_null": 1}


@pytest.mark.parametrize("column", [[1, 2], [b"a", b"b"], [["a"], ["b"]], [{"a": "b"}, None]])
def test_a_column_of_something_else_is_set_aside_row_by_row(tmp_path: Path, column: Any) -> None:
    _, account = read(write(tmp_path / "a.parquet", content=column))
    assert account.quarantined == {"field_not_string": 2}
    _, account = read(
        write(tmp_path / "b.parquet", content=["x", "y"], group=column), group_field="group"
    )
    assert account.quarantined == {"group_not_string": 2}


def test_blank_null_and_damaged_cells_have_their_fates(tmp_path: Path) -> None:
    values = [b"ok", b"\xff", None, b"", b" \n", b"x" * ((8 << 20) + 1), b"z"]
    column = pyarrow.Array.from_buffers(
        pyarrow.string(), len(values), pyarrow.array(values).buffers()
    )
    documents, account = read(write(tmp_path / "a.parquet", content=column))
    assert [(document.text, document.row) for document in documents] == [("ok", 1), ("z", 7)]
    assert account.quarantined == {"not_utf8": 1, "field_null": 1, "document_too_large": 1}
    assert account.drops == {"empty": 1, "whitespace": 1}
    assert [entry["row"] for entry in account.entries] == [2, 3, 6]


@pytest.mark.parametrize("names", [["text", "n"], ["content", "content"]])
def test_a_missing_column_is_refused_with_those_there_are(tmp_path: Path, names: list[str]) -> None:
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 2, names=names)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DamagedFile) as refused:
        read(tmp_path / "a.parquet")
    assert refused.value.id == "corpus.column-missing"
    assert ", ".join(names) in refused.value.found


def test_a_file_without_rows_has_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", content=pyarrow.array([], pyarrow.string()))
    documents, account = read(path)
    assert (documents, account.num_rows) == ([], 0)


@pytest.mark.parametrize("size", [0, 4, 7, 8, 500, -1])
def test_a_truncated_file_is_one_row_that_says_so(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "a.parquet", content=TEXTS)
    path.write_bytes(path.read_bytes()[:size])
    documents, account = read(path)
    assert documents == []
    assert account.quarantined == {"damaged" if size == 4 else "truncated": 1}


def test_damage_inside_ends_the_span_and_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", content=TEXTS)
    data = bytearray(path.read_bytes())
    page = data.index(TEXTS[100].encode())
    data[page - 20 : page] = b"\xff" * 20
    path.write_bytes(data)
    documents, account = read(path)
    assert [document.text for document in documents] == TEXTS[:100]
    assert account.quarantined == {"damaged": 1}
    assert account.entries[0]["row"] == 101


def test_another_file_of_the_same_size_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", content=TEXTS)
    span = spans_of(path, 1)[-1]
    write(path, content=TEXTS, row_group_size=300)
    size_bytes = path.stat().st_size
    with pytest.raises(DamagedFile) as refused:
        list(SpanReader(replace(span, size_bytes=size_bytes, stop=size_bytes), account=Account()))
    assert refused.value.id == "corpus.input-changed"


def test_a_text_is_measured_in_bytes(tmp_path: Path) -> None:
    texts = ["\u00e9" * ((4 << 20) + 1), "\u00e9" * (4 << 20)]
    documents, account = read(write(tmp_path / "a.parquet", content=texts))
    assert [document.row for document in documents] == [2]
    assert account.quarantined == {"document_too_large": 1}


class FailingDisk(io.FileIO):
    """A disk that fails at the rows and not at the footer."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() < 60_000:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


def test_a_disk_that_fails_is_no_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.parquet", content=TEXTS)
    monkeypatch.setattr(io, "FileIO", FailingDisk)
    cells = read_cells(
        str(path),
        size_bytes=path.stat().st_size,
        first_row_group=0,
        num_row_groups=None,
        content_field="content",
        group_field=None,
    )
    with pytest.raises(IoFailed) as refused:
        next(cells)
    assert refused.value.id == "files.io-failed"
