"""Whatever is written is read: in any compression, cut anywhere, among any garbage."""

import gzip
import json
import tempfile
from itertools import pairwise
from pathlib import Path

import pyarrow
import pyarrow.parquet
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from apr.corpus.reading.account import Account
from apr.corpus.reading.documents import Document, list_files, read_documents
from apr.corpus.reading.lines import OverlongLine, split_lines
from apr.corpus.reading.span_reader import SpanReader
from apr.corpus.reading.spans import cut_spans

# Text that has a UTF-8 form and is no blank document.
TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: text.strip() != ""),
    max_size=20,
)
FORMATS = st.sampled_from([".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"])


def pack(lines: list[bytes], ending: str, cuts: list[int]) -> bytes:
    """The lines as one file, in as many members or frames as there are cuts."""
    data = b"".join(lines)
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    parts = [data[start:stop] for start, stop in pairwise(bounds)]
    if ending == ".jsonl.gz":
        return b"".join(gzip.compress(part, 1) for part in parts)
    if ending == ".jsonl.zst":
        return b"".join(zstandard.compress(part) for part in parts)
    return data


def read(directory: Path, span_bytes: int) -> tuple[list[Document], Account]:
    account = Account()
    documents: list[Document] = []
    for span in cut_spans(list_files([directory], drops=account), span_bytes=span_bytes):
        documents += SpanReader(span, account=account)
    account.require_balanced()
    return documents, account


@settings(max_examples=150)
@given(TEXTS, FORMATS, st.integers(1, 300), st.lists(st.integers(0), max_size=3), st.booleans())
def test_what_is_written_is_read(
    texts: list[str], ending: str, span_bytes: int, cuts: list[int], as_ascii: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "a" + ending)
        if ending == ".parquet":
            table = pyarrow.table({"content": pyarrow.array(texts, pyarrow.string())})
            pyarrow.parquet.write_table(table, path, row_group_size=3)
        else:
            lines = [
                json.dumps({"n": 1, "content": text}, ensure_ascii=as_ascii).encode() + b"\n"
                for text in texts
            ]
            path.write_bytes(pack(lines, ending, cuts))
        documents, account = read(path.parent, span_bytes)
    assert [document.text for document in documents] == texts
    assert [document.row for document in documents] == list(range(1, len(texts) + 1))
    assert (account.num_rows, account.drops, account.quarantined) == (len(texts), {}, {})


GARBAGE = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.sampled_from(
            [b"\n", b"\r\n", b"\xef\xbb\xbf", b'{"content": "x"}', b'{"content"', b"\0"]
        ),
    ),
    max_size=30,
)


@settings(max_examples=200)
@given(GARBAGE, FORMATS, st.integers(1, 60), st.integers(-20, 0))
def test_every_row_of_any_garbage_has_one_fate(
    pieces: list[bytes], ending: str, span_bytes: int, cut: int
) -> None:
    plain = b"".join(pieces)
    data = pack(pieces, ending, [])
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "a" + ending)
        path.write_bytes(data[:cut] if cut else data)
        documents, account = read(path.parent, span_bytes)
        whole, whole_account = read(path.parent, 1 << 30)
    assert documents == whole
    assert account.as_dict() == whole_account.as_dict()
    if ending != ".parquet" and not cut:
        num_lines = plain.count(b"\n") + (not plain.endswith(b"\n") and plain != b"")
        assert account.num_rows == num_lines


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=8), max_size=12), st.integers(8, 20))
def test_lines_are_what_lies_between_line_feeds(blocks: list[bytes], limit_bytes: int) -> None:
    found: list[int | bytes] = []
    for lines in split_lines(blocks, limit_bytes=limit_bytes):
        found += [lines.size_bytes] if isinstance(lines, OverlongLine) else lines
    data = b"".join(blocks)
    expected = data.split(b"\n")[: None if not data.endswith(b"\n") and data else -1]
    assert found == [len(line) if len(line) > limit_bytes else line for line in expected]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(["a", "b/c", "b/d", "e.py"]), st.binary(max_size=20))))
def test_every_file_of_a_tree_has_one_fate(files: list[tuple[str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        for number, (path, data) in enumerate(files):
            target = Path(name, f"{path}-{number}")
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(data)
        (Path(name) / "good.py").write_text("x")
        account = Account()
        documents = list(read_documents([Path(name)], drops=account))
        assert account.num_rows == len(files) + 1 == len(documents) + sum(account.drops.values())
        for document in documents:
            assert Path(document.source).read_bytes() == document.text.encode()
