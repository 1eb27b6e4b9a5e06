"""A scan: every number is the one that is counted by other means, whatever lies there."""

import base64
import codecs
import gzip
import hashlib
import json
import os
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import zstandard
from pyarrow import parquet
from tests.corpus_files import program, write_jsonl, write_tree
from tests.peak_memory import measured

from apr.corpus.certificate import DocumentTally
from apr.corpus.reading.account import Account
from apr.corpus.reading.documents import read_documents
from apr.corpus.scanning.scan import scan_corpus
from apr.errors import DamagedFile, IoFailed, PathNotFound, Refusal, UsageRefusal
from apr.progress import Progress

TAG = "SPDX-License-" + "Identifier:"


def scanned(*paths: Path | str, **options: Any) -> dict[str, Any]:
    found = scan_corpus(paths, **options).as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def left_out(found: dict[str, Any]) -> dict[tuple[str, bool], int]:
    return {
        (each["reason"], each["is_quarantined"]): each["num_rows"] for each in found["left_out"]
    }


def languages(found: dict[str, Any]) -> dict[tuple[str | None, tuple[str, ...]], tuple[int, int]]:
    return {
        (each["language"], tuple(sorted(each["extensions"]))): (
            each["num_documents"],
            each["text_bytes"],
        )
        for each in found["languages"]
    }


def licences(found: dict[str, Any]) -> dict[tuple[str, str], int]:
    return {
        (each["licence"], each["named_in"]): each["num_documents"]
        for each in found["licences"]["found"]
    }


def test_the_numbers_of_a_tree_are_those_of_its_files(tmp_path: Path) -> None:
    texts = {f"r{number % 3}/{number}.py": program(number) for number in range(30)}
    texts |= {f"r1/é{number}.rs": f"// {TAG} MIT\n" + "é" * number for number in range(5)}
    texts |= {"r2/a.pyi": "a\n", "r2/Makefile": "all:\n", "r2/x.foo": "x", "r2/y.bar": "y", "z": ""}
    tree = write_tree(tmp_path / "in", texts)
    found = scanned(tree)
    kept = [text for text in texts.values() if text]
    assert found["num_files"] == found["num_rows"] == len(texts)
    assert found["size_bytes"] == sum(path.stat().st_size for path in tree.rglob("*.*")) + 5
    assert found["formats"] == {
        "text": {"num_files": len(texts), "size_bytes": found["size_bytes"]}
    }
    assert found["num_documents"] == len(kept)
    assert found["text_bytes"] == sum(len(text.encode()) for text in kept)
    assert found["num_characters"] == sum(map(len, kept))
    tally = DocumentTally()
    for text in kept:
        tally.add(text)
    assert found["documents_sha256"] == tally.as_set().documents_sha256
    sizes: Counter[str] = Counter()
    for name, text in texts.items():
        sizes[Path(name).suffix] += len(text.encode())
    assert languages(found) == {
        ("Python", (".py", ".pyi")): (31, sizes[".py"] + sizes[".pyi"]),
        ("Rust", (".rs",)): (5, sizes[".rs"]),
        ("Make", ("Makefile",)): (1, 5),
        (None, (".foo",)): (1, 1),
        (None, (".bar",)): (1, 1),
    }
    by_size = [each["text_bytes"] for each in found["languages"]]
    assert by_size == sorted(by_size, reverse=True)
    assert licences(found) == {("MIT", "tag"): 5}
    assert found["licences"]["without"] == {
        "num_documents": len(kept) - 5,
        "text_bytes": found["text_bytes"] - sizes[".rs"],
    }
    assert found["stops"] == []
    assert left_out(found) == {("empty", False): 1}
    assert found["left_out"][0]["places"] == [str(tree / "z")]


ROWS = [
    {"content": program(1), "path": "a/b.py", "license": "MIT"},
    {"content": program(2), "path": "c.rs", "license": ["MIT", "Apache-2.0"]},
    {"content": f"{TAG} ISC\n", "path": "LICENSE", "license": []},
    {"content": "d\n", "path": None, "license": None},
    {"content": "e\n"},
    {"content": "f\n", "path": "", "license": "MIT"},
]
LANGUAGES = {("Python", (".py",)): 1, ("Rust", (".rs",)): 1, (None, ("",)): 1, (None, ()): 3}
LICENCES = {
    ("MIT", "row"): 3,
    ("Apache-2.0", "row"): 1,
    ("ISC", "tag"): 1,
    ("unrecognised", "file"): 1,
}


def write_rows(path: Path) -> Path:
    if path.suffix == ".parquet":
        columns: dict[str, Any] = {
            "content": [row["content"] for row in ROWS],
            "path": [row.get("path") for row in ROWS],
            "license": [
                [each] if isinstance(each := row.get("license"), str) else each for row in ROWS
            ],
        }
        parquet.write_table(pyarrow.table(columns), path, row_group_size=4)
        return path
    data = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    packed = {".gz": gzip.compress, ".zst": zstandard.compress, ".jsonl": bytes}[path.suffix](data)
    path.write_bytes(packed)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_rows_of_every_format_give_their_paths_and_licences(tmp_path: Path, name: str) -> None:
    found = scanned(write_rows(tmp_path / name))
    assert (found["num_rows"], found["num_documents"], found["num_files"]) == (6, 6, 1)
    assert list(found["formats"]) == [name.removeprefix("a.")]
    assert {key: count for key, (count, _) in languages(found).items()} == LANGUAGES
    assert licences(found) == LICENCES
    assert found["licences"]["without"] == {"num_documents": 2, "text_bytes": 4}
    assert found["fields"] == {
        "path": {"name": "path", "num_found": 3, "num_documents": 6},
        "license": {"name": "license", "num_found": 3, "num_documents": 6},
    }
    other = scanned(tmp_path / name, path_field="p", license_field="content")
    assert list(languages(other)) == [(None, ())]
    assert other["fields"]["path"]["num_found"] == 0
    assert other["fields"]["license"]["num_found"] == 6


def test_a_field_that_is_something_else_makes_no_row_a_bad_one(tmp_path: Path) -> None:
    rows = [{"content": "x", "path": odd, "license": odd} for odd in (7, ["a"], {}, True, 1.5)]
    found = scanned(write_jsonl(tmp_path / "a.jsonl", rows))
    assert (found["num_documents"], found["num_quarantined"]) == (5, 0)
    assert list(languages(found)) == [(None, ())]
    assert licences(found) == {("a", "row"): 1}
    repeated = tmp_path / "b.jsonl"
    repeated.write_text('{"content": "x", "path": "a.c", "path": "a.py"}\n')
    assert list(languages(scanned(repeated))) == [("Python", (".py",))]


@pytest.mark.parametrize(
    "column",
    [
        [1, 2],
        [{"a": 1}, None],
        [b"a.py", b"b.py"],
        [[1], []],
        pyarrow.Array.from_buffers(
            pyarrow.string(), 2, pyarrow.array([b"\xff.py", b"\xfe.py"]).buffers()
        ),
        pyarrow.ListArray.from_arrays(
            [0, 1, 2],
            pyarrow.Array.from_buffers(
                pyarrow.string(), 2, pyarrow.array([b"\xff", b"\xfe"]).buffers()
            ),
        ),
    ],
    ids=["numbers", "structs", "bytes", "lists of numbers", "not UTF-8", "lists not UTF-8"],
)
def test_a_column_of_something_else_is_an_unknown_path(tmp_path: Path, column: Any) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"content": ["x", "y"], "path": column}), path)
    found = scanned(path, license_field="path")
    assert (found["num_documents"], found["num_quarantined"]) == (2, 0)
    assert list(languages(found)) == [(None, ())]
    assert licences(found) == {}


def test_a_column_may_be_the_text_itself_or_stand_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pyarrow.Table.from_arrays(
        [pyarrow.array(["a.py"])] * 3, names=["content", "path", "path"]
    )
    parquet.write_table(table, path)
    assert list(languages(scanned(path))) == [(None, ())]
    assert list(languages(scanned(path, path_field="content"))) == [("Python", (".py",))]


def test_names_made_up_by_every_row_are_counted_together(tmp_path: Path) -> None:
    rows = ({"content": "x", "license": f"licence {number}"} for number in range(10_500))
    found = scanned(write_jsonl(tmp_path / "a.jsonl", rows))
    assert len(found["licences"]["found"]) == 10_001
    assert licences(found)["(others)", "row"] == 500


def test_a_licence_file_is_recognised_and_covers_itself_alone(tmp_path: Path) -> None:
    tree = write_tree(
        tmp_path / "in",
        {
            "LICENSE": "Apache License\nVersion 2.0, January 2004\n",
            "a/COPYING": "mine",
            "a/b.py": "x = 1\n",
        },
    )
    found = scanned(tree)
    assert licences(found) == {("Apache-2.0", "file"): 1, ("unrecognised", "file"): 1}
    assert found["licences"]["without"]["num_documents"] == 1


def test_encodings_and_line_ends_are_counted(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    files = {
        "ascii.py": b"a\nb\n",
        "one.py": b"a",
        "bom.py": codecs.BOM_UTF8 + b"a\r\nb\r\n",
        "mac.py": b"a\rb\r",
        "mixed.py": "é\r\nb\n".encode(),
        "mixed2.py": b"a\rb\n",
        "mixed3.py": b"a\rb\r\n",
        "u16le": codecs.BOM_UTF16_LE + "ab".encode("utf-16-le"),
        "u16be": codecs.BOM_UTF16_BE + "ab".encode("utf-16-be"),
        "u16cjk": codecs.BOM_UTF16_LE + "中文".encode("utf-16-le"),
        "u32le": codecs.BOM_UTF32_LE + "ab".encode("utf-32-le"),
        "u32be": codecs.BOM_UTF32_BE + "ab".encode("utf-32-be"),
        "latin": b"caf\xe9",
        "binary": b"\x7fELF\0\0",
    }
    for name, data in files.items():
        (tmp_path / "in" / name).write_bytes(data)
    write_jsonl(tmp_path / "in" / "rows.jsonl", [{"content": "a\0b\r\n"}])
    found = scanned(tmp_path / "in")
    encodings = found["encodings"]
    assert (encodings["ascii"], encodings["utf-8"], encodings["num_with_nul"]) == (6, 2, 1)
    assert encodings["num_byte_order_marks"] == 1
    assert encodings["line_ends"] == {"lf": 1, "none": 1, "crlf": 2, "cr": 1, "mixed": 3}
    assert encodings["not_utf8"] == {
        name: {"num_files": len(files), "places": [str(tmp_path / "in" / each) for each in files]}
        for name, files in (
            ("8-bit", ["latin"]),
            ("binary", ["binary"]),
            ("utf-16-be", ["u16be"]),
            ("utf-16-le", ["u16cjk", "u16le"]),
            ("utf-32-be", ["u32be"]),
            ("utf-32-le", ["u32le"]),
        )
    }
    assert left_out(found) == {("binary", False): 5, ("not_utf8", False): 2}
    named = scanned(tmp_path / "in" / "latin", tmp_path / "in" / "ascii.py")
    assert left_out(named) == {("not_utf8", True): 1}
    assert list(named["encodings"]["not_utf8"]) == ["8-bit"]


def test_copies_are_counted_by_thousands_with_their_places(tmp_path: Path) -> None:
    texts = ["dup\n"] * 3000 + ["dup \r\n"] * 7 + ["\ufeffdup"] + [program(1)] * 2 + [program(2)]
    path = write_jsonl(tmp_path / "a.jsonl", [{"content": text} for text in texts])
    tree = write_tree(tmp_path / "b", {"x.py": program(1), "y.py": "dup\n\n"})
    found = scanned(path, tree, num_shown=2)["duplicates"]
    every = [*texts, program(1), "dup\n\n"]
    for name, form in (
        ("exact", lambda text: text),
        ("normal_form", lambda text: text.strip("\ufeff \r\n")),
    ):
        seen: set[str] = set()
        copies = [text for text in every if form(text) in seen or seen.add(form(text))]
        assert found[name]["num_documents"] == len(copies)
        assert found[name]["text_bytes"] == sum(len(text.encode()) for text in copies)
    most, second = found["most_repeated"]
    assert (most["num_copies"], most["num_spellings"]) == (3009, 4)
    assert most["text_bytes"] == 3000 * 4 + 7 * 6 + 6 + 5
    assert most["places"] == [{"source": str(path), "row": row} for row in (1, 2, 3)]
    assert (second["num_copies"], second["num_spellings"]) == (3, 1)
    assert second["places"] == [
        {"source": str(path), "row": 3009},
        {"source": str(path), "row": 3010},
        {"source": str(tree / "x.py")},
    ]


def noise(number: int, size_bytes: int) -> str:
    digest = hashlib.shake_128(b"%d" % number).digest(size_bytes * 3 // 4)
    return base64.b64encode(digest).decode()


def test_what_stands_out_is_found_with_its_number(tmp_path: Path) -> None:
    texts = [program(number, lines=number) for number in range(2, 60)]
    texts += [noise(1, 5000), noise(2, 9000) + "\n", "same\n" * 4000, "x" * 2000 + "\r" + "y" * 99]
    texts += ["a\n" + "é" * 3000 + "\nb", "a\n" + "z" * 2500]
    path = write_jsonl(tmp_path / "a.jsonl", [{"content": text} for text in texts])
    worst = scanned(path, num_shown=4)["worst"]

    def ranked(name: str, values: dict[int, float], *, lowest: bool = False) -> list[Any]:
        order = sorted(values, key=lambda at: (values[at] if lowest else -values[at], at))
        return [
            {name: values[at] if name != "ratio" else round(values[at], 3), "source": str(path)}
            | {"row": at + 1}
            for at in order[:4]
        ]

    sizes = {at: len(text.encode()) for at, text in enumerate(texts)}
    lines = {
        at: max(len(line.encode()) for line in text.replace("\r", "\n").split("\n"))
        for at, text in enumerate(texts)
    }
    ratios = {}
    for at, text in enumerate(texts):
        data = text.encode()
        if len(data) >= 4096:
            start = (len(data) - 4096) // 2
            ratios[at] = 4096 / len(zlib.compress(data[start : start + 4096]))
    assert worst["largest"] == ranked("size_bytes", sizes)
    assert worst["longest_line"] == ranked("line_bytes", lines)
    assert worst["most_compressible"] == ranked("ratio", ratios)
    assert worst["least_compressible"] == ranked("ratio", ratios, lowest=True)
    outside = sum(not 1.5 <= ratio <= 40 for ratio in ratios.values())
    assert [min(ratios.values()) < 1.5, max(ratios.values()) > 40, outside] == [True, True, 4]
    assert worst["compression"] == {
        "sample_bytes": 4096,
        "band": [1.5, 40.0],
        "num_measured": len(ratios),
        "num_outside_band": outside,
    }


def test_of_equals_the_first_are_shown_and_none_when_none_is_asked_for(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"content": "x\n"}] * 9)
    worst = scanned(path, num_shown=2)["worst"]
    assert [each["row"] for each in worst["largest"]] == [1, 2]
    assert [each["row"] for each in worst["longest_line"]] == [1, 2]
    found = scanned(path, num_shown=0)
    assert found["duplicates"]["most_repeated"] == found["worst"]["largest"] == []


BAD_ROWS = [
    ("not_an_object", b'["x"]'),
    ("field_missing", b'{"text": "x"}'),
    ("field_null", b'{"content": null}'),
    ("field_not_string", b'{"content": 1}'),
    ("not_utf8", b'{"content": "\xff"}'),
    ("lone_surrogate", b'{"content": "\\ud800"}'),
    ("broken_json", b'{"content": "x'),
    ("field_missing", b'{"code": "x"}'),
]


def test_bad_rows_stop_nothing_and_are_told_with_place_and_cause(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = b'{"content": "x"}\n'
    path.write_bytes(b"".join(good + row + b"\n" for _, row in BAD_ROWS) + b"\n" + good)
    found = scanned(path)
    assert found["num_documents"] == len(BAD_ROWS) + 1
    assert left_out(found) == {(reason, True): 1 for reason, _ in BAD_ROWS} | {
        ("blank_line", False): 1,
        ("field_missing", True): 2,
    }
    assert found["encodings"]["not_utf8"] == {}
    places = {each["reason"]: each["places"] for each in found["left_out"]}
    for number, (reason, _) in enumerate(BAD_ROWS):
        assert f"{path}:{2 * number + 2}" in places[reason]
    assert sum(map(len, places.values())) == len(BAD_ROWS) + 1
    told = {each["reason"]: each["found"] for each in found["left_out"]}
    assert told["field_missing"] == "no field 'content'; fields: text"
    assert told["blank_line"] is None
    (stop,) = found["stops"]
    assert stop == {
        "id": "corpus.quarantined",
        "where": f"{path}:2",
        "max_quarantined": len(BAD_ROWS),
    }


def test_what_a_scan_allows_is_what_reading_needs(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in/a.jsonl", [{"content": "x"}, {}, {"content": 1}])
    packed = gzip.compress(b'{"content": "y"}\n' * 5000)
    (tmp_path / "in/b.jsonl.gz").write_bytes(packed[:-9])
    frames = zstandard.compress(b'{"content": "z"}\n' * 5000)
    (tmp_path / "in/c.jsonl.zst").write_bytes(frames[:-5])
    (tmp_path / "in/d.parquet").write_bytes(write_rows(tmp_path / "d.parquet").read_bytes()[:-9])
    found = scanned(tmp_path / "in")
    allowed = found["stops"][0]["max_quarantined"]
    assert allowed == 5
    assert left_out(found)["truncated", True] == 3
    account = Account()
    read = list(read_documents([tmp_path / "in"], drops=account, max_quarantined=allowed))
    assert len(read) == found["num_documents"]
    assert account.as_dict() == found["account"]
    with pytest.raises(DamagedFile):
        list(read_documents([tmp_path / "in"], drops=Account(), max_quarantined=allowed - 1))


def test_the_first_places_of_a_late_reason_are_known(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("[]\n" * 1200 + '{"content": 1}\n' * 9 + '{"content": "x"}\n')
    found = scanned(path)
    assert left_out(found) == {("not_an_object", True): 1200, ("field_not_string", True): 9}
    late = found["left_out"][1]
    assert late["places"] == [f"{path}:{row}" for row in range(1201, 1206)]
    assert late["found"] is None


def test_documents_over_the_limit_show_up(tmp_path: Path) -> None:
    large = "x" * ((8 << 20) + 1)
    tree = write_tree(tmp_path / "in", {"large.py": large, "b.py": "b"})
    rows = write_jsonl(tmp_path / "a.jsonl", [{"content": large}, {"content": "a"}])
    named = write_tree(tmp_path, {"named.py": large})
    found = scanned(tree, rows, named / "named.py")
    assert left_out(found) == {("too_large", False): 1, ("document_too_large", True): 2}
    places = {each["reason"]: each["places"] for each in found["left_out"]}
    assert places["too_large"] == [str(tree / "large.py")]
    assert places["document_too_large"] == [f"{rows}:1", str(named / "named.py")]
    assert [each["size_bytes"] for each in found["worst"]["largest"]] == [1, 1]


def unreadable_file(path: Path) -> Path:
    """A file that may be opened and not read, even by root."""
    memory = Path("/proc/self/mem")
    if not memory.exists():
        pytest.skip("needs the proc filesystem of Linux")
    path.symlink_to(memory)
    return path


@pytest.mark.parametrize("name", ["a.py", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_a_file_that_cannot_be_read_stops_nothing_beside_others(tmp_path: Path, name: str) -> None:
    bad = unreadable_file(tmp_path / name)
    good = write_tree(tmp_path / "in", {"b.py": "b\n", "c.py": "c\n"})
    found = scanned(good / "b.py", bad, good / "c.py")
    if name == "a.parquet":  # whose footer is what cannot be read, and tells of a cut file
        assert found["num_unreadable"] + found["num_quarantined"] == 1
    else:
        assert found["num_unreadable"] == 1
        (told,) = found["unreadable"]
        assert (told["id"], told["where"]) == ("files.io-failed", str(bad))
        assert found["stops"] == [{"id": "files.io-failed", "where": str(bad)}]
        assert (found["num_rows"], found["left_out"]) == (2, [])
    assert found["num_documents"] == 2
    if name != "a.parquet":
        with pytest.raises(IoFailed):
            scan_corpus([bad])


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
def test_a_file_without_permission_is_told(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "in", {"a.py": "a", "b.py": "b"})
    (tree / "a.py").chmod(0)
    found = scanned(tree)
    assert (found["num_documents"], found["num_unreadable"]) == (1, 1)
    assert found["unreadable"][0]["where"] == str(tree / "a.py")


def test_many_unreadable_files_are_counted_and_some_are_told(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(120):
        parquet.write_table(pyarrow.table({"x": ["y"]}), tmp_path / "in" / f"{number}.parquet")
    with pytest.raises(DamagedFile) as refused:
        scan_corpus([tmp_path / "in"])
    assert refused.value.id == "corpus.column-missing"
    write_tree(tmp_path / "in", {"a.py": "a"})
    found = scanned(tmp_path / "in")
    assert (found["num_unreadable"], len(found["unreadable"])) == (120, 100)
    assert found["num_rows"] == found["num_documents"] == 1
    (stop,) = found["stops"]
    assert stop["id"] == "corpus.column-missing"
    assert "the columns: x" in found["unreadable"][0]["found"]


def test_a_file_that_grows_while_it_is_scanned_is_told(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"content": "x"}] * 100)
    other = write_jsonl(tmp_path / "b.jsonl", [{"content": "y"}])
    size_bytes = path.stat().st_size

    def grow(_progress: Progress) -> None:
        if path.stat().st_size == size_bytes:
            with path.open("ab") as opened:
                opened.write(b'{"content": "late"}\n')

    found = scanned(path, other, progress=grow)
    assert [each["id"] for each in found["unreadable"]] == ["corpus.input-changed"]
    assert found["num_documents"] == 101


def test_nothing_but_bad_rows_is_told_and_not_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("[]\n")
    found = scanned(path)
    assert (found["num_documents"], found["text_bytes"]) == (0, 0)
    assert [each["id"] for each in found["stops"]] == ["corpus.quarantined", "corpus.empty"]
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    assert [each["id"] for each in scanned(empty)["stops"]] == ["corpus.empty"]


def test_what_listing_refuses_is_refused(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "in", {"a.py": "a"})
    (tmp_path / "void").mkdir()
    for paths, kind, id in (
        ([tmp_path / "gone"], PathNotFound, "files.not-found"),
        ([tmp_path / "void"], Refusal, "corpus.empty"),
        ([tree, tree / "a.py"], UsageRefusal, "corpus.path-repeated"),
    ):
        with pytest.raises(kind) as refused:
            scan_corpus(paths)
        assert refused.value.id == id


def test_links_are_counted_and_loops_end(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "in", {"a/b.py": "b", "skip/c.py": "c"})
    (tree / "a" / "loop").symlink_to(tree)
    (tree / "self").symlink_to(tree / "self")
    found = scanned(tree, exclude=["skip"])
    assert left_out(found) == {("symlink", False): 2, ("excluded", False): 1}
    assert (found["num_documents"], found["num_rows"], found["num_files"]) == (1, 4, 1)


def test_names_that_are_no_text_survive_json(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / os.fsdecode(b"\xff.py")
    path.write_text("x")
    for given in (path, tmp_path / "in"):
        found = scanned(given)
        assert found["worst"]["largest"][0]["source"] == str(tmp_path / "in") + "/\\xff.py"
        assert list(languages(found)) == [("Python", (".py",))]
    assert scanned(path)["paths"] == [str(tmp_path / "in") + "/\\xff.py"]


def test_a_url_is_scanned_as_its_files_are(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "in", {"a.py": "a\n", "b/c.rs": "a\n"})
    write_rows(tree / "d.jsonl.zst")
    (tree / "e.txt").write_bytes(codecs.BOM_UTF16_BE + b"\0a")
    local, remote = scanned(tree), scanned(f"file://{tree}")
    assert remote["paths"] == [f"file://{tree}"]
    for found in (local, remote):
        del found["paths"]
    assert json.dumps(remote).replace(f"file://{tree}", str(tree)) == json.dumps(local)


def test_progress_reaches_its_end(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "in", {f"{number}.py": program(number) for number in range(9)})
    reports: list[Progress] = []
    found = scanned(tree, progress=reports.append)
    done = [report.done for report in reports]
    assert done == sorted(done)
    assert reports[-1] == Progress("scanning", found["size_bytes"], found["size_bytes"], "bytes")


MEASURE = """
import json, sys
from apr.corpus.scanning.scan import scan_corpus
from tests.peak_memory import peak_kib
scan_corpus([sys.argv[1]])
before = peak_kib()
found = scan_corpus([sys.argv[2]]).as_dict()
grown_kib = peak_kib() - before
print(json.dumps({"num": found["num_documents"], "reasons": found["left_out"], "kib": grown_kib}))
"""


@pytest.mark.slow
def test_memory_is_some_tens_of_bytes_for_a_document(tmp_path: Path) -> None:
    small = write_jsonl(tmp_path / "small.jsonl", [{"content": program(1)}] * 100)
    num_documents = 100_000
    rows = (
        {"content": f"{number} {'x' * 500}\n", "path": f"{number}.py", "license": f"L{number}"}
        for number in range(num_documents)
    )
    found = measured(MEASURE, small, write_jsonl(tmp_path / "a.jsonl", rows))
    assert found["num"] == num_documents
    # The texts alone are 500 bytes each; most of what is held is for sorting hashes at the end.
    assert found["kib"] * 1024 / num_documents < 350


@pytest.mark.slow
def test_a_line_of_200_megabytes_is_told_in_bounded_memory(tmp_path: Path) -> None:
    small = write_jsonl(tmp_path / "small.jsonl", [{"content": program(1)}])
    path = tmp_path / "a.jsonl.zst"
    with path.open("wb") as plain, zstandard.ZstdCompressor().stream_writer(plain) as target:
        target.write(b'{"content": "a"}\n{"content": "')
        for _ in range(200):
            target.write(b"x" * (1 << 20))
        target.write(b'"}\n{"content": "b"}\n')
    found = measured(MEASURE, small, path)
    assert found["num"] == 2
    assert [each["reason"] for each in found["reasons"]] == ["line_too_long"]
    assert found["kib"] < 150 << 10
