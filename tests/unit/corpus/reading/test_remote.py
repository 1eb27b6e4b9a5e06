"""The reading engine on URLs, through fsspec's in-memory and local filesystems."""

import builtins
import gzip
import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fsspec
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from fsspec.spec import AbstractFileSystem

from apr.corpus.reading.account import Account
from apr.corpus.reading.documents import Document, list_files, read_documents
from apr.corpus.reading.span_reader import SpanReader
from apr.corpus.reading.spans import Span, cut_spans, span_sha256
from apr.errors import DamagedFile, FeatureMissing, IoFailed, PathNotFound, Refusal, UsageRefusal

ROOT = "memory://apr-test"


@pytest.fixture
def memory() -> Iterator[Any]:
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    if filesystem.exists("/apr-test"):
        filesystem.rm("/apr-test", recursive=True)


def row(text: str) -> bytes:
    return json.dumps({"content": text}).encode() + b"\n"


def parquet_bytes(texts: list[str]) -> bytes:
    target = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"content": texts}), target, row_group_size=1)
    return target.getvalue()


FILES = {
    "a.jsonl": row("1") + row("2"),
    "b/c.jsonl.gz": gzip.compress(row("3")),
    "b/d.jsonl.zst": zstandard.compress(row("4")),
    "b/e/f.parquet": parquet_bytes(["5", "6"]),
    "g.py": b"7",
    ".hidden/x.py": b"no",
    "h/.x.py": b"no",
    "h/not.bin": b"\0",
}


def read(*paths: Path | str) -> tuple[list[Document], Account]:
    account = Account()
    return list(read_documents(paths, drops=account)), account


@pytest.fixture
def remote(memory: Any) -> str:
    for name, data in FILES.items():
        memory.pipe(f"/apr-test/{name}", data)
    return ROOT


@pytest.fixture
def local(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_every_format_is_read_from_a_url_as_from_a_disk(remote: str, local: Path) -> None:
    expected, account = read(local)
    assert [document.text for document in expected] == list("1234567")
    for url in (remote, remote + "/", f"file://{local}", f"local://{local}/"):
        documents, remote_account = read(url)
        assert [(d.text, d.group, d.row) for d in documents] == [
            (d.text, d.group, d.row) for d in expected
        ]
        base = url.rstrip("/")
        assert [d.source for d in documents] == [
            d.source.replace(str(local), base) for d in expected
        ]
        assert remote_account.drops == account.drops == {"binary": 1}


def test_spans_of_a_url_survive_json_and_have_the_same_hashes(remote: str, local: Path) -> None:
    def spans_of(path: Path | str) -> list[Span]:
        return list(cut_spans(list_files([path], drops=Account()), span_bytes=10_000))

    for here, there in zip(spans_of(local), spans_of(remote), strict=True):
        there = Span(**json.loads(json.dumps(asdict(there))))
        reader = SpanReader(there, account=Account())
        texts = [document.text for document in reader]
        assert texts == [document.text for document in SpanReader(here, account=Account())]
        assert reader.sha256 == span_sha256(there) == span_sha256(here)


def test_a_single_file_may_be_named(remote: str) -> None:
    documents, _ = read(f"{remote}/a.jsonl")
    assert [(d.text, d.group) for d in documents] == [("1", "a.jsonl:1"), ("2", "a.jsonl:2")]


def test_links_and_pipes_below_a_url_are_counted_and_never_opened(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / os.fsdecode(b"\xff %20.py")).write_text("y")
    documents, account = read(f"file://{tmp_path}")
    assert sorted(document.text for document in documents) == ["x", "y"]
    assert account.drops == {"symlink": 2, "special_file": 1}
    with pytest.raises(DamagedFile) as refused:
        read(f"file://{tmp_path}/pipe")
    assert refused.value.id == "corpus.special-file"


def test_a_file_that_changed_at_its_url_is_refused(memory: Any, remote: str) -> None:
    (span,) = cut_spans(list_files([f"{remote}/g.py"], drops=Account()), span_bytes=10)
    memory.pipe("/apr-test/g.py", b"78")
    with pytest.raises(DamagedFile) as refused:
        list(SpanReader(span, account=Account()))
    assert refused.value.id == "corpus.input-changed"
    memory.rm("/apr-test/g.py")
    with pytest.raises(PathNotFound):
        list(SpanReader(span, account=Account()))


@pytest.mark.parametrize(
    ("url", "kind", "id"),
    [
        ("memory://apr-test/nothing", PathNotFound, "files.not-found"),
        ("file:///nothing/here", PathNotFound, "files.not-found"),
        ("nonsense://bucket", UsageRefusal, "corpus.unknown-protocol"),
        ("memory://apr-test/empty", Refusal, "corpus.empty"),
    ],
)
def test_a_url_that_is_nothing_is_refused(
    memory: Any, url: str, kind: type[Refusal], id: str
) -> None:
    memory.makedirs("/apr-test/empty")
    with pytest.raises(kind) as refused:
        read(url)
    assert (type(refused.value), refused.value.id) == (kind, id)


@pytest.mark.parametrize("again", ["a.jsonl", "", "b"])
def test_a_url_is_not_read_twice(remote: str, local: Path, again: str) -> None:
    for first, second in (
        (remote, f"{remote}/{again}"),
        (f"{remote}/{again}", remote + "/"),
        (f"file://{local}", local / again),
    ):
        with pytest.raises(UsageRefusal) as refused:
            read(first, second)
        assert refused.value.id == "corpus.path-repeated"


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_s3fs(name: str, *args: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "s3fs":
            raise ImportError("no s3fs")
        return real_import(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_s3fs)
    with pytest.raises(FeatureMissing) as refused:
        read("s3://bucket/key")
    assert refused.value.id == "corpus.no-driver"
    assert "s3fs" in refused.value.found
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(FeatureMissing) as refused:
        read("memory://x")
    assert "apr[remote]" in refused.value.fix


class Unreachable(Exception):
    """An exception that only a driver knows."""


def test_whatever_a_driver_raises_is_a_refusal(
    memory: Any, remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: Any, **_options: Any) -> Any:
        raise Unreachable("no route")

    files = list_files([remote], drops=Account())
    kind = type(memory)
    for name in ("ls", "info", "open"):
        with monkeypatch.context() as patch:
            patch.setattr(kind, name, fail)
            with pytest.raises(IoFailed) as refused:
                read(remote)
        assert refused.value.found == "Unreachable: no route"
    opened = type(memory.open("/apr-test/g.py", "rb"))
    for file in files:
        (span,) = cut_spans([file], span_bytes=1 << 20)
        with monkeypatch.context() as patch:
            patch.setattr(opened, "read", fail)
            with pytest.raises(IoFailed):
                list(SpanReader(span, account=Account()))


class OddStore(AbstractFileSystem):
    """What other stores list: an object for a directory, links to directories, no sizes."""

    protocol = "odd"
    sizes: int | None = 1

    def info(self, path: str, **_options: Any) -> dict[str, Any]:
        return {"name": path, "size": 0, "type": "directory"}

    def ls(self, path: str, detail: bool = True, **_options: Any) -> list[dict[str, Any]]:
        inside = path.strip("/")
        if inside.endswith("/empty"):
            return [{"name": inside + "/", "size": 0, "type": "directory"}]
        return [
            {"name": inside + "/", "size": 0, "type": "file"},
            {"name": inside + "/a.py", "size": self.sizes, "type": "file"},
            {"name": inside + "/loop", "size": 0, "type": "directory", "islink": True},
            {"name": inside + "/empty", "size": 0, "type": "directory"},
        ]


def test_what_stores_list_otherwise_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("odd", OddStore, clobber=True)
    account = Account()
    (file,) = list_files(["odd://bucket/data"], drops=account)
    assert (file.location, file.size_bytes) == ("odd://bucket/data/a.py", 1)
    assert account.drops == {"symlink": 1}
    monkeypatch.setattr(OddStore, "sizes", None)
    with pytest.raises(IoFailed) as refused:
        list_files(["odd://bucket/data"], drops=Account())
    assert refused.value.found == "a size of None"
