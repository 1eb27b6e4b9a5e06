"""F16: input lost without an error.

A row that claims to be a document and is none stops the work or is set aside and counted; what may
be left out is counted by reason; nothing at all is an error; each file is read by its own kind.
"""

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow
import pytest
import zstandard
from pyarrow import parquet
from tests.tokenizer_files import tokenizer

from apr.corpus.reading.account import Account
from apr.corpus.reading.documents import list_files, read_documents
from apr.corpus.reading.span_reader import SpanReader
from apr.corpus.reading.spans import cut_spans, span_sha256
from apr.errors import DamagedFile, IoFailed, PathNotFound, Refusal
from apr.shards.encode import encode_corpus
from apr.shards.manifest import Manifest
from apr.shards.provenance import read_provenance
from apr.shards.verifying.verify import verify

NUM_LINES = 10_000


def encode(path: Path) -> Manifest:
    output = path.parent / "out"
    return encode_corpus([path], tokenizer=tokenizer(), encoder="reference", output=output)


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
    assert sorted(os.listdir(tmp_path)) == ["a.jsonl", "out.partial"]
    entries = (tmp_path / "out.partial" / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(entry)["row"] for entry in entries] == [5000]


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


ROWS = [b'{"content": "x = %d %s"}\n' % (number, b"y" * (number % 97)) for number in range(6_000)]
TEXTS = [json.loads(row)["content"] for row in ROWS]
FORMATS = ["a.jsonl", "a.jsonl.gz", "a.jsonl.gzip", "a.jsonl.zst", "a.jsonl.zstd", "a.parquet"]


def packed(name: str) -> bytes:
    data = b"".join(ROWS)
    if "gz" in name:
        return gzip.compress(data[:90_000], 1) + gzip.compress(data[90_000:], 1)
    if "zst" in name:
        return zstandard.compress(data[:90_000]) + zstandard.compress(data[90_000:])
    if name == "a.parquet":
        target = io.BytesIO()
        parquet.write_table(pyarrow.table({"content": TEXTS}), target, row_group_size=1000)
        return target.getvalue()
    return data


def read(path: Path, *, exclude: tuple[str, ...] = ()) -> tuple[list[str], Account]:
    account = Account()
    files = list_files([path], drops=account, exclude=exclude)
    texts = [
        document.text
        for span in cut_spans(files, span_bytes=50_000)
        for document in SpanReader(span, account=account)
    ]
    account.require_balanced()
    assert account.num_documents == len(texts)
    return texts, account


@pytest.mark.parametrize("name", FORMATS)
def test_every_row_of_every_format_arrives(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(packed(name))
    texts, account = read(tmp_path)
    assert texts == TEXTS
    assert (account.drops, account.quarantined) == ({}, {})


@pytest.mark.parametrize("name", FORMATS[1:])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_file_is_no_smaller_corpus(tmp_path: Path, name: str, share: float) -> None:
    data = packed(name)
    (tmp_path / name).write_bytes(data[: int(share * len(data))])
    texts, account = read(tmp_path)
    assert account.quarantined == {"truncated": 1}
    assert texts == TEXTS[: len(texts)]
    # Parquet is written from its end; without that nothing of it can be read.
    assert (len(texts) > 100) == (share > 0 and name != "a.parquet")
    assert len(texts) < len(TEXTS)
    with pytest.raises(DamagedFile) as refused:
        account.require_quarantined_at_most(0)
    assert refused.value.id == "corpus.quarantined"
    # A budget of rows must not be taken for a budget of files.
    assert "1 of them stand for all that is left of a file" in refused.value.found
    assert refused.value.fix.startswith("fetch those files again")
    with pytest.raises(DamagedFile) as refused:
        list(read_documents([tmp_path / name], drops=Account()))
    assert refused.value.fix == "fetch the file again"


def test_a_bad_row_costs_itself_and_no_other(tmp_path: Path) -> None:
    bad = {
        "broken_json": b'{"content": "x',
        "field_missing": b'{"text": "x"}',
        "field_null": b'{"content": null}',
        "field_not_string": b'{"content": {"text": "x"}}',
        "field_repeated": b'{"content": "x", "content": "y"}',
        "not_an_object": b'["x"]',
        "not_utf8": b'{"content": "\xff"}',
        "lone_surrogate": b'{"content": "\\ud800"}',
        "document_too_large": b'{"content": "' + b"x" * ((8 << 20) + 1) + b'"}',
    }
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b"".join(ROWS[number] + row + b"\n" for number, row in enumerate(bad.values()))
    )
    texts, account = read(path)
    assert texts == TEXTS[: len(bad)]
    assert account.quarantined == dict.fromkeys(bad, 1)
    data = path.read_bytes()
    for entry, row in zip(account.entries, bad.values(), strict=True):
        assert data[entry["offset"] :].startswith(row + b"\n")
        assert data[: entry["offset"]].count(b"\n") == entry["row"] - 1


def test_a_file_is_read_whatever_lies_beside_it(tmp_path: Path) -> None:
    for name in FORMATS:
        (tmp_path / name.replace("a.", f"{name.count('z')}{len(name)}.")).write_bytes(packed(name))
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("a = 1")
    (tmp_path / "README").write_text("b")
    texts, account = read(tmp_path)
    assert len(texts) == len(FORMATS) * len(TEXTS) + 2
    assert account.num_rows == len(texts)


def test_fixtures_can_be_excluded_and_are_counted(tmp_path: Path) -> None:
    for name in ("a.py", "src/b.py", "tests/c.py", "tests/data/d.jsonl", "old/tests/e.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert read(tmp_path)[1].quarantined == {"broken_json": 2}
    for exclude, left in (
        (("*.jsonl",), ["a.py", "src/b.py", "tests/c.py"]),
        (("tests",), ["a.py", None, "src/b.py"]),
        (("tests/", "old/*"), ["a.py", "src/b.py"]),
        (("*/c.py", "*tests/*.jsonl"), ["a.py", "src/b.py"]),
    ):
        texts, account = read(tmp_path, exclude=exclude)
        assert texts == [name for name in left if name]
        num_bad = account.num_quarantined
        assert account.drops == {"excluded": 5 - len(texts) - num_bad}
        assert num_bad == (None in left)
    with pytest.raises(Refusal) as refused:
        read(tmp_path, exclude=("*",))
    assert refused.value.id == "corpus.empty"
    assert "5 excluded" in refused.value.found


def test_a_directory_of_nothing_beside_a_full_one_is_refused(tmp_path: Path) -> None:
    write = lines(tmp_path / "a.jsonl")
    with pytest.raises(Refusal) as refused:
        list_files([write, empty_directory(tmp_path)], drops=Account())
    assert (refused.value.id, refused.value.where) == ("corpus.empty", str(tmp_path / "empty"))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("change", [b"\n", b"more"])
def test_a_file_that_grows_between_plan_and_run_is_refused(
    tmp_path: Path, name: str, change: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(packed(name))
    spans = list(cut_spans(list_files([path], drops=Account()), span_bytes=50_000))
    with path.open("ab") as opened:
        opened.write(change)
    assert len(spans) > 1 or "z" in name
    for span in spans:
        with pytest.raises(DamagedFile) as refused:
            list(SpanReader(span, account=Account()))
        assert refused.value.id == "corpus.input-changed"


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl")
    (span,) = cut_spans(list_files([path], drops=Account()), span_bytes=1 << 30)
    documents = iter(SpanReader(span, account=Account()))
    assert next(documents).row == 1
    with path.open("ab") as opened:
        opened.write(b'{"content": "late"}\n')
    with pytest.raises(DamagedFile) as refused:
        list(documents)
    assert refused.value.id == "corpus.input-changed"


@pytest.mark.parametrize("name", [*FORMATS, "a.py"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    memory = Path("/proc/self/mem")  # may be opened, and its first page not read, even by root
    if not memory.exists():
        pytest.skip("needs the proc filesystem of Linux")
    (tmp_path / name).symlink_to(memory)
    (file,) = list_files([tmp_path / name], drops=Account())
    whole = replace(file, size_bytes=10)
    for use in (
        lambda: [
            list(SpanReader(span, account=Account())) for span in cut_spans([whole], span_bytes=50)
        ],
        lambda: [span_sha256(span) for span in cut_spans([whole], span_bytes=3)],
    ):
        with pytest.raises(IoFailed) as refused:
            use()
        assert refused.value.id == "files.io-failed"


BOM = b"\xef\xbb\xbf"


def test_a_byte_order_mark_is_skipped_in_rows_and_kept_in_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(BOM + b"".join(ROWS[:2]))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(BOM + ROWS[2]))
    (tmp_path / "c.py").write_bytes(BOM + b"x")
    (tmp_path / "d.jsonl").write_bytes(ROWS[3] + BOM + ROWS[4])
    texts, account = read(tmp_path)
    assert texts == [*TEXTS[:3], "\ufeffx", TEXTS[3]]
    assert account.num_byte_order_marks == 3
    assert account.quarantined == {"broken_json": 1}


def test_line_ends_of_any_system_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(ROWS[0].replace(b"\n", b"\r\n") * 3 + b"\r\n" + ROWS[1][:-1])
    (tmp_path / "b.py").write_bytes(b"a\r\nb\rc\n")
    texts, account = read(tmp_path)
    assert texts == [TEXTS[0]] * 3 + [TEXTS[1], "a\r\nb\rc\n"]
    assert account.drops == {"blank_line": 1}


def test_what_was_never_opened_has_a_line_of_its_own(tmp_path: Path) -> None:
    """The witness of an encoding balances with its manifest, or verify would call it another's."""
    tree = tmp_path / "tree"
    (tree / "data").mkdir(parents=True)
    (tree / "a.py").write_text("hello hello\n")
    os.symlink("..", tree / "data" / "loop")
    os.mkfifo(tree / "data" / "pipe")
    for name in ("z.csv", "b.csv", "m.csv"):
        (tree / "data" / name).write_text(name)
    output = tmp_path / "shards"
    manifest = encode_corpus(
        [tree], tokenizer=tokenizer(), output=output, exclude=["*.csv"], encoder="reference"
    )
    assert manifest.drops == {"excluded": 3, "special_file": 1, "symlink": 1}
    rows = [(Path(row.source).name, row.dropped) for row in read_provenance(output)]
    assert rows == [
        ("b.csv", "excluded"),
        ("loop", "symlink"),
        ("m.csv", "excluded"),
        ("pipe", "special_file"),
        ("z.csv", "excluded"),
        ("a.py", None),
    ]
    tokenizer().save(tmp_path / "tok")
    found = verify(output, tokenizer_path=tmp_path / "tok")
    assert {check.name: check.verdict for check in found.checks}["sources"] == "PASS"
    assert found.refusal is None


# Root reads everything, unless it gives that up.
PRIVILEGE = "-dac_override,-dac_read_search"
WITHOUT_PRIVILEGE = (
    ["setpriv", f"--bounding-set={PRIVILEGE}", f"--inh-caps={PRIVILEGE}"]
    if os.geteuid() == 0
    else []
)


@pytest.mark.parametrize("locked", ["tree/b.py", "tree/below", "rows.jsonl", None])
@pytest.mark.parametrize(
    "command",
    [
        "corpus split tree rows.jsonl --group file --val-fraction 0.4 -o out",
        "corpus dedup tree rows.jsonl --no-near -o out",
        "tokenize train --corpus tree --corpus rows.jsonl --vocab-size 300 -o out",
        "tokenize encode-corpus --corpus tree --corpus rows.jsonl --tokenizer tok "
        "--encoder reference --num-workers 1 -o out",
    ],
    ids=lambda command: " ".join(command.split()[:2]),
)
def test_a_file_without_permission_to_read_ends_every_command(
    tmp_path: Path, command: str, locked: str | None
) -> None:
    if WITHOUT_PRIVILEGE and shutil.which("setpriv") is None:
        pytest.skip("root without setpriv reads everything")
    (tmp_path / "tree" / "below").mkdir(parents=True)
    for name in ("tree/a.py", "tree/b.py", "tree/below/c.py"):
        (tmp_path / name).write_text(f"name = {name!r}\n" * 9)
    rows = [json.dumps({"content": f"row {number}"}) for number in range(9)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    tokenizer().save(tmp_path / "tok")
    if locked is not None:
        (tmp_path / locked).chmod(0)
    done = subprocess.run(
        [*WITHOUT_PRIVILEGE, sys.executable, "-m", "apr", *command.split(), "--json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
    )
    if locked is not None:
        (tmp_path / locked).chmod(0o700)
        refused = json.loads(done.stdout)["refused"]
        assert (done.returncode, refused["id"]) == (7, "files.io-failed")
        assert refused["where"] == locked
    else:
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").exists() is (locked is None)
