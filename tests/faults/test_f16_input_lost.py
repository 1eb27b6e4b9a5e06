"""F16: input lost without an error.

A line that claims to be a document and is not stops the work; what may be left out is counted by
reason; nothing at all is an error.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tokenizer_files import tokenizer

from apr.errors import DamagedFile, PathNotFound, Refusal
from apr.shards.encode import encode_corpus
from apr.shards.manifest import Manifest

NUM_LINES = 10_000


def encode(path: Path) -> Manifest:
    return encode_corpus([path], tokenizer=tokenizer(), output=path.parent / "out")


def lines(path: Path, *, bad: bytes | None = None) -> Path:
    rows = [b'{"content": "x = %d"}' % number for number in range(NUM_LINES)]
    if bad is not None:
        rows[4_999] = bad
    path.write_bytes(b"\n".join(rows) + b"\n")
    return path


def test_every_line_arrives(tmp_path: Path) -> None:
    manifest = encode(lines(tmp_path / "a.jsonl"))
    assert manifest.total_documents == NUM_LINES
    assert manifest.drops == {}


@pytest.mark.parametrize(
    "bad",
    [
        b'{"content": "x',
        b'{"text": "x"}',
        b'{"content": null}',
        b'{"content": "\xff"}',
        b'{"content": "\\ud800"}',
    ],
    ids=["broken JSON", "missing field", "null", "invalid UTF-8", "lone surrogate"],
)
def test_line_5000_of_10000_stops_the_work(tmp_path: Path, bad: bytes) -> None:
    path = lines(tmp_path / "a.jsonl", bad=bad)
    with pytest.raises(DamagedFile) as refused:
        encode(path)
    assert refused.value.where == f"{path}:5000"
    assert refused.value.exit_code == 4
    assert os.listdir(tmp_path) == ["a.jsonl"]


def gone(root: Path) -> Path:
    return root / "nothing-matches-*.jsonl"


def empty_directory(root: Path) -> Path:
    (root / "empty").mkdir()
    return root / "empty"


def empty_file(root: Path) -> Path:
    (root / "a.jsonl").touch()
    return root / "a.jsonl"


@pytest.mark.parametrize(
    ("plant", "kind", "id"),
    [
        (gone, PathNotFound, "files.not-found"),
        (empty_directory, Refusal, "corpus.empty"),
        (empty_file, Refusal, "corpus.empty"),
    ],
)
def test_nothing_is_refused(
    tmp_path: Path, plant: Callable[[Path], Path], kind: type[Refusal], id: str
) -> None:
    with pytest.raises(kind) as refused:
        encode(plant(tmp_path))
    assert refused.value.id == id


def test_what_a_tree_leaves_out_is_counted(tmp_path: Path) -> None:
    root = tmp_path / "src"
    root.mkdir()
    for number in range(10):
        (root / f"{number}.py").write_text(f"x = {number}\n")
    (root / "latin.py").write_bytes(b"\xe9")
    (root / "empty.py").touch()
    manifest = encode(root)
    assert manifest.total_documents + sum(manifest.drops.values()) == 12
    assert manifest.drops == {"empty": 1, "not_utf8": 1}
