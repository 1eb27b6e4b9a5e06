"""Rows written are rows read, and those that are none are named."""

import gzip
import json
from pathlib import Path

import pytest
import zstandard

from apr.corpus.reading.account import Account
from apr.corpus.reading.documents import read_documents
from apr.corpus.reading.jsonl import write_objects, write_rows
from apr.errors import DamagedFile, Refusal

ROWS = [("a\nb", "x.py"), ("\u2028 é \U0001f600 \0", "y.py"), ("c", "z.py", "group")]
NAMES = ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "deep" / name
    assert write_rows(path, ROWS) == 3
    documents = list(read_documents([path], drops=Account(), group_field="group"))
    assert [document.text for document in documents] == [row[0] for row in ROWS]
    assert [document.group for document in documents] == [f"{name}:1", f"{name}:2", "group"]


def test_an_object_is_a_line(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", ROWS[:1])
    assert (tmp_path / "a.jsonl").read_bytes() == b'{"content": "a\\nb", "source": "x.py"}\n'
    assert write_objects(tmp_path / "b.jsonl", [{"n": 1, "é": None}, {}]) == 2
    assert json.loads((tmp_path / "b.jsonl").read_text().splitlines()[0]) == {"n": 1, "é": None}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_rows_are_the_same_bytes(tmp_path: Path, name: str) -> None:
    for directory in ("first", "second"):
        write_rows(tmp_path / directory / name, ROWS)
    assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_failure_leaves_nothing(tmp_path: Path, name: str) -> None:
    def rows():
        yield "fine", "x"
        raise Refusal("planted.fault", "x", found=1, expected=2, fix="none")

    with pytest.raises(Refusal):
        write_rows(tmp_path / name, rows())
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_without_consent(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_rows(path, ROWS)
    with pytest.raises(Refusal) as refused:
        write_rows(path, [])
    assert refused.value.id == "files.exists"
    assert write_rows(path, ROWS[:1], overwrite=True) == 1
    assert path.read_bytes().count(b"\n") == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_row_is_named_as_it_stands_in_the_unpacked_text(tmp_path: Path, name: str) -> None:
    text = b'{"content": "a"}\n' * 300 + b"{broken}\n" + b'{"content": "b"}\n'
    packed = {"gz": gzip.compress, "zst": zstandard.compress}.get(name.rpartition(".")[2], bytes)
    path = tmp_path / name
    path.write_bytes(packed(text))
    with pytest.raises(DamagedFile) as refused:
        list(read_documents([path], drops=Account()))
    assert refused.value.where == f"{path}:301"
    assert ("row 301 of the decompressed text" in refused.value.fix) == (name != "a.jsonl")
    # To the reader of one row it is the first line of all.
    assert refused.value.found.endswith(" at character 2")
