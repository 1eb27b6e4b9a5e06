"""Malformed corpora: no line is skipped silently, nothing is followed, nothing hangs."""

import os
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from apr.corpus.account import Account
from apr.corpus.documents import list_files, read_documents
from apr.errors import DamagedFile, IoFailed, Refusal

GOOD = b'{"content": "fine"}\n'


def read(path: Path) -> list[str]:
    return [document.text for document in read_documents([path], drops=Account())]


LINES = {
    "broken JSON": b'{"content": "fi\n',
    "a truncated object": b'{"content": "fine"',
    "two objects": b'{"content": "a"} {"content": "b"}\n',
    "a list": b'["content"]\n',
    "a text": b'"content"\n',
    "a missing field": b'{"text": "fine"}\n',
    "null": b'{"content": null}\n',
    "a number": b'{"content": 7}\n',
    "a list in the field": b'{"content": ["a"]}\n',
    "invalid UTF-8": b'{"content": "\xe9"}\n',
    "an encoded surrogate": b'{"content": "\xed\xa0\x80"}\n',
    "a lone surrogate": b'{"content": "\\ud800"}\n',
    "a repeated field": b'{"content": "a", "content": "b"}\n',
    "NaN": b'{"content": "a", "score": NaN}\n',
    "a number of too many digits": b'{"content": "a", "n": ' + b"9" * 10_000 + b"}\n",
    "nested without end": b'{"content": ' + b"[" * 100_000 + b"\n",
    "a control character": b'{"content": "a\x01b"}\n',
    "NUL bytes": bytes(64) + b"\n",
    "UTF-16": '{"content": "a"}\n'.encode("utf-16"),
}


@pytest.mark.parametrize("name", LINES)
def test_a_bad_line_stops_the_reading_and_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD * 5 + LINES[name] + (GOOD * 5 if LINES[name].endswith(b"\n") else b""))
    with pytest.raises(DamagedFile) as refused:
        read(path)
    assert refused.value.id == "corpus.jsonl-damaged"
    assert refused.value.where == f"{path}:6"


def test_good_lines_pass(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD * 5 + b'{"content": "\\ud83d\\ude00", "n": 1e3}\r\n{"content":"z"}')
    assert read(path) == ["fine"] * 5 + ["\U0001f600", "z"]


def test_a_line_without_end_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as sparse:
        sparse.truncate(200 << 20)
    tracemalloc.start()
    with pytest.raises(DamagedFile) as refused:
        read(path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.value.where == f"{path}:1"
    assert refused.value.found.startswith("line_too_long: a line of 209715200 bytes")
    assert peak_bytes < 80 << 20


def test_a_document_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"content": "' + b"x" * (8 << 20) + b'"}\n')
    assert len(read(path)[0]) == 8 << 20
    path.write_bytes(b'{"content": "' + b"x" * ((8 << 20) + 1) + b'"}\n')
    with pytest.raises(Refusal) as refused:
        read(path)
    assert (refused.value.id, refused.value.exit_code) == ("corpus.document-too-large", 5)
    assert refused.value.where == f"{path}:1"


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DamagedFile) as refused:
        read(tmp_path / "pipe")
    assert refused.value.id == "corpus.special-file"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x")
    (tmp_path / "a.py").chmod(0)
    with pytest.raises(IoFailed):
        read(tmp_path)


def test_links_that_lead_in_circles_end(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    assert read(tmp_path) == ["x"]
    with pytest.raises(Refusal) as refused:
        read(tmp_path / "self")
    assert refused.value.exit_code == 3


def test_a_deep_tree_is_read(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 1050)
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1050):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    (deep / "a.py").write_text("x")
    try:
        assert read(tmp_path) == ["x"]
    finally:  # too deep for what pytest removes directories with
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def test_names_that_are_no_text_are_shown_as_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.py")
    (tmp_path / name).write_text("x")
    document = next(read_documents([tmp_path], drops=Account()))
    assert document.source.encode("utf-8")
    assert [file.path.name for file in list_files([tmp_path], drops=Account())] == [name]
