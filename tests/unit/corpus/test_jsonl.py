"""Rows written are rows read."""

import json
from pathlib import Path

import pytest

from apr.corpus.jsonl import read_rows, write_rows
from apr.errors import Refusal

ROWS = [("a\nb", "x.py"), ("", "empty"), ("\u2028 é \U0001f600 \0", "y.py")]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.jsonl"
    assert write_rows(path, ROWS) == 3
    rows = list(read_rows(path, content_field="content"))
    assert rows == [(1, ROWS[0][0]), (2, ROWS[1][0]), (3, ROWS[2][0])]
    assert json.loads(path.read_text().splitlines()[0]) == {"content": "a\nb", "source": "x.py"}


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def rows():
        yield "fine", "x"
        raise Refusal("planted.fault", "x", found=1, expected=2, fix="none")

    with pytest.raises(Refusal):
        write_rows(tmp_path / "a.jsonl", rows())
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_without_consent(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_rows(path, ROWS)
    with pytest.raises(Refusal) as refused:
        write_rows(path, [])
    assert refused.value.id == "files.exists"
    assert write_rows(path, ROWS[:1], overwrite=True) == 1
    assert path.read_bytes().count(b"\n") == 1
