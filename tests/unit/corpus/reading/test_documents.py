"""Which documents files and trees stand for, in which order, and what is left out."""

import os
from pathlib import Path

import pytest
from tests.shard_files import write_corpus

from apr.corpus.reading.account import Account
from apr.corpus.reading.documents import Document, read_documents
from apr.errors import PathNotFound, Refusal, UsageRefusal


def read(*paths: Path, field: str = "content") -> tuple[list[Document], Account]:
    drops = Account()
    return list(read_documents(paths, content_field=field, drops=drops)), drops


def tree(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def test_a_jsonl_file_gives_its_lines(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "a.jsonl", ["one", "two\n", "thrée"])
    documents, drops = read(corpus)
    assert [document.text for document in documents] == ["one", "two\n", "thrée"]
    assert [document.place for document in documents] == [f"{corpus}:{n}" for n in (1, 2, 3)]
    assert drops.drops == {}


def test_another_field_may_hold_the_text(tmp_path: Path) -> None:
    corpus = tmp_path / "a.jsonl"
    corpus.write_text('{"text": "one", "content": 7}\n{"text": "two"}')
    documents, _ = read(corpus, field="text")
    assert [document.text for document in documents] == ["one", "two"]


def test_any_other_file_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes("a\r\nb\0c"[:4].encode())
    documents, _ = read(path)
    assert documents == [Document("a\r\nb", str(path), "notes.txt")]


def test_a_tree_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    names = ["b.py", "a/z.py", "a/b/c.py", "a.py", "Z/1", "a/b.py"]
    tree(tmp_path, {name: name.encode() for name in names})
    documents, _ = read(tmp_path)
    expected = ["Z/1", "a/b/c.py", "a/b.py", "a/z.py", "a.py", "b.py"]
    assert [document.text for document in documents] == expected


def test_paths_keep_the_order_they_are_given_in(tmp_path: Path) -> None:
    first = write_corpus(tmp_path / "z.jsonl", ["1"])
    second = tree(tmp_path / "a", {"x.py": b"2"})
    documents, _ = read(first, second)
    assert [document.text for document in documents] == ["1", "2"]


def test_a_group_is_the_first_level_of_a_tree(tmp_path: Path) -> None:
    names = ("pkg/a.py", "pkg/sub/b.py", "single.py", "other/single.py")
    tree(tmp_path, {name: b"x" for name in names})
    documents, _ = read(tmp_path)
    assert [document.group for document in documents] == ["other", "pkg", "pkg", "single"]


def test_lines_of_jsonl_stand_alone(tmp_path: Path) -> None:
    documents, _ = read(write_corpus(tmp_path / "a.jsonl", ["x", "y"]))
    assert len({document.group for document in documents}) == 2


def test_rows_of_two_files_of_a_tree_stand_apart(tmp_path: Path) -> None:
    for name in ("pkg/a.jsonl", "pkg/b.jsonl", "other/b.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_corpus(tmp_path / name, ["x"])
    groups = [document.group for document in read(tmp_path)[0]]
    assert groups == ["other/b.jsonl:1", "pkg/a.jsonl:1", "pkg/b.jsonl:1"]


def test_what_is_no_text_in_a_tree_is_counted(tmp_path: Path) -> None:
    files = {
        "good.py": b"x = 1\n",
        "latin.py": "été".encode("latin-1"),
        "surrogate.py": b"\xed\xa0\x80",
        "image.png": b"\x89PNG\0\0",
        "empty.py": b"",
        ".hidden.py": b"secret",
        ".git/config": b"secret",
    }
    root = tree(tmp_path / "src", files)
    (root / "link.py").symlink_to(root / "good.py")
    (root / "linked").symlink_to(tmp_path)
    os.mkfifo(root / "pipe.py")
    documents, drops = read(root)
    assert [document.text for document in documents] == ["x = 1\n"]
    counts = {"not_utf8": 2, "binary": 1, "empty": 1, "symlink": 2, "special_file": 1}
    assert drops.drops == counts
    assert drops.examples["binary"] == [str(root / "image.png")]
    assert drops.describe().startswith("2 not_utf8, 2 symlink, 1 binary")


def test_a_link_that_was_named_is_followed(tmp_path: Path) -> None:
    root = tree(tmp_path / "src", {"a.py": b"x"})
    (tmp_path / "link").symlink_to(root)
    assert len(read(tmp_path / "link")[0]) == 1


def test_blank_texts_and_blank_lines_are_counted(tmp_path: Path) -> None:
    corpus = tmp_path / "a.jsonl"
    corpus.write_text('{"content": ""}\n\n{"content": " \\t\\n"}\n  \n{"content": " x"}\n')
    documents, drops = read(corpus)
    assert [(document.text, document.row) for document in documents] == [(" x", 5)]
    assert drops.drops == {"empty": 1, "blank_line": 2, "whitespace": 1}


def test_only_the_first_examples_are_kept() -> None:
    drops = Account()
    for number in range(100):
        drops.drop("empty", str(number))
    assert drops.drops == {"empty": 100}
    assert drops.examples == {"empty": ["0", "1", "2", "3", "4"]}


def test_a_missing_path_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "a.jsonl")
    with pytest.raises(PathNotFound) as refused:
        read_documents([corpus, tmp_path / "nothing"], drops=Account())
    assert refused.value.where == str(tmp_path / "nothing")


def test_a_corpus_without_a_document_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "src", {"a.py": b"", "b.bin": b"\0", "c.bin": b"\0"})
    for paths, found in ([root], "2 binary, 1 empty"), ([tree(tmp_path / "no", {})], "nothing"):
        (tmp_path / "no").mkdir(exist_ok=True)
        with pytest.raises(Refusal) as refused:
            read(*paths)
        assert refused.value.id == "corpus.empty"
        assert found in refused.value.found


@pytest.mark.parametrize("name", ["a.jsonl", "src", "src/pkg", "src/pkg/x.py"])
def test_a_document_is_not_read_twice(tmp_path: Path, name: str) -> None:
    tree(tmp_path / "src", {"pkg/x.py": b"x"})
    write_corpus(tmp_path / "a.jsonl")
    with pytest.raises(UsageRefusal) as refused:
        read(tmp_path / name, tmp_path / "a.jsonl", tmp_path / "src")
    assert refused.value.id == "corpus.path-repeated"
    assert read(tmp_path / "a.jsonl", tmp_path / "src")[0]


@pytest.mark.parametrize(
    ("data", "id"),
    [
        (b"\0", "corpus.not-text"),
        ("é".encode("latin-1"), "corpus.not-text"),
        (b"x" * ((8 << 20) + 1), "corpus.document-too-large"),
    ],
    ids=["NUL", "latin", "large"],
)
def test_a_named_file_that_cannot_be_read_is_refused(tmp_path: Path, data: bytes, id: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(Refusal) as refused:
        read(path)
    assert refused.value.id == id


@pytest.mark.parametrize("name", ["A.JSONL", "b.jsonl"])
def test_the_case_of_a_suffix_does_not_matter(tmp_path: Path, name: str) -> None:
    assert len(read(write_corpus(tmp_path / name, ["x", "y"]))[0]) == 2


def test_a_very_large_file_in_a_tree_is_counted(tmp_path: Path) -> None:
    tree(tmp_path, {"small.py": b"x", "large.py": b"x" * (8 << 20) + b"x"})
    documents, drops = read(tmp_path)
    assert len(documents) == 1
    assert drops.drops == {"too_large": 1}
