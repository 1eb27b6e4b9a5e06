"""Malformed corpora: no line is skipped silently, nothing is followed, nothing hangs."""

import gzip
import os
import subprocess
import tracemalloc
from itertools import islice
from pathlib import Path

import pyarrow
import pytest
import zstandard
from pyarrow import parquet

from apr.corpus.reading.account import Account
from apr.corpus.reading.compressed import DamagedStream, unpack
from apr.corpus.reading.documents import list_files, read_documents
from apr.corpus.reading.lines import split_lines
from apr.corpus.reading.parquet import count_rows
from apr.corpus.reading.span_reader import SpanReader
from apr.corpus.reading.spans import Span
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


LONG_LINE_BYTES = 200 << 20


def write_long_line(path: Path) -> None:
    """One document, a line of 200 MB, another document; the compressed ones are bombs."""
    before, after = b'{"content": "one"}\n{"content": "', b'"}\n{"content": "two"}\n'
    filling = b"x" * (1 << 20)
    with path.open("wb") as raw:
        if path.suffix == ".gz":
            target = gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1)
        elif path.suffix == ".zst":
            target = zstandard.ZstdCompressor().stream_writer(raw, closefd=False)
        else:
            target = raw
        target.write(before)
        for _ in range(LONG_LINE_BYTES >> 20):
            target.write(filling)
        target.write(after)
        if target is not raw:
            target.close()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_a_line_without_end_is_passed_over_in_bounded_memory(tmp_path: Path, name: str) -> None:
    write_long_line(tmp_path / name)
    account = Account()
    tracemalloc.start()
    documents = list(read_documents([tmp_path], drops=account, max_quarantined=1))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(document.text, document.row) for document in documents] == [("one", 1), ("two", 3)]
    account.require_balanced()
    (entry,) = account.entries
    assert (entry["reason"], entry["row"], entry["offset"]) == ("line_too_long", 2, 19)
    assert entry["found"].startswith(f"a line of {LONG_LINE_BYTES + 15} bytes")
    assert peak_bytes < 160 << 20
    with pytest.raises(DamagedFile) as refused:
        read(tmp_path)
    assert refused.value.where == f"{tmp_path / name}:2"


def densest_frame(filling: bytes, num_blocks: int) -> bytes:
    """The densest zstd frame there is: 128 KiB for each block of four bytes."""
    block = (((128 << 10) << 3) | (1 << 1)).to_bytes(3, "little") + filling
    last = ((1 << 3) | 1).to_bytes(3, "little") + b"\n"
    return b"\x28\xb5\x2f\xfd\x00" + bytes([(17 - 10) << 3]) + block * num_blocks + last


@pytest.mark.parametrize("filling", [b"{", b"\0"], ids=["braces", "NULs"])
def test_a_bomb_of_one_line_is_one_row_and_small(tmp_path: Path, filling: bytes) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(densest_frame(filling, 2000) + zstandard.compress(GOOD))
    account = Account()
    tracemalloc.start()
    documents = list(read_documents([path], drops=account, max_quarantined=1))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(document.text, document.row) for document in documents] == [("fine", 2)]
    assert account.quarantined == {"line_too_long": 1}
    assert peak_bytes < 160 << 20


def test_a_bomb_of_line_feeds_is_cut_into_short_lists() -> None:
    num_lines = longest = 0
    for lines in split_lines(unpack([densest_frame(b"\n", 300)], "zst")):
        assert isinstance(lines, list)
        num_lines, longest = num_lines + len(lines), max(longest, len(lines))
    assert num_lines == 300 * (128 << 10) + 1
    assert longest <= 1 << 20


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


def parquet_file(path: Path) -> tuple[bytes, int]:
    """A small file in three row groups, and where its footer begins."""
    texts = [f"text {number}" for number in range(20)]
    table = pyarrow.table({"content": texts, "n": list(range(20))})
    # Without Arrow's copy of the schema, whose bytes no reader of the rows looks at.
    parquet.write_table(table, path, row_group_size=7, store_schema=False)
    data = path.read_bytes()
    return data, len(data) - 8 - int.from_bytes(data[-8:-4], "little")


def outcome(span: Span) -> str:
    account = Account()
    try:
        texts = list(SpanReader(span, account=account))
    except Refusal as refused:
        return refused.id
    account.require_balanced()
    return "set aside" if account.quarantined else f"{len(texts)} texts"


@pytest.mark.parametrize("flip", [0x01, 0x02, 0x80])
def test_no_footer_of_parquet_loses_a_row_or_brings_the_reader_down(
    tmp_path: Path, flip: int
) -> None:
    path = tmp_path / "a.parquet"
    data, footer = parquet_file(path)
    size = path.stat().st_size
    span = Span(str(path), "parquet", None, 0, size, size, "a", in_tree=False)
    outcomes: set[str] = set()
    for place in range(footer, size):
        path.write_bytes(data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :])
        outcomes.add(outcome(span))
    assert {"20 texts", "set aside"} <= outcomes
    assert outcomes <= {"20 texts", "set aside", "corpus.column-missing"}


def test_row_groups_that_take_rows_from_each_other_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    data, footer = parquet_file(path)
    # The counts of the row groups, 7, 7 and 6, and of the file, 20, as zigzag numbers.
    places = [
        place
        for place in range(footer, len(data))
        if _says(path, data, {place: data[place] ^ 1}).startswith("row groups of [")
    ]
    first, second = (place for place in places if data[place] == 14)
    found = _says(path, data, {first: 15, second: 44})
    assert found == "row groups of [-8, 22, 6] rows in a file of 20"


def _says(path: Path, data: bytes, changes: dict[int, int]) -> str:
    changed = bytearray(data)
    for place, value in changes.items():
        changed[place] = value
    path.write_bytes(changed)
    try:
        count_rows(str(path), size_bytes=len(data))
    except DamagedStream as fault:
        return fault.found
    return ""


def test_a_dictionary_that_repeats_one_large_text_stays_small(tmp_path: Path) -> None:
    text = pyarrow.array(["x" * (4 << 20)]).dictionary_encode()
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 5000), text.dictionary)
    parquet.write_table(pyarrow.table({"content": column}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 20
    tracemalloc.start()
    documents = read_documents([tmp_path / "a.parquet"], drops=Account())
    sizes = {len(document.text) for document in islice(documents, 100)}
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sizes == {4 << 20}
    assert peak_bytes < 200 << 20
