"""The running interpreter's sources as a corpus."""

from pathlib import Path

import pytest

from apr.corpus.interpreter import MIN_SOURCE_BYTES, interpreter_documents
from apr.corpus.reading.account import Account
from apr.corpus.reading.documents import Document
from apr.errors import Refusal


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    try:
        return interpreter_documents(drops=Account())
    except Refusal as refusal:
        if refusal.id == "corpus.interpreter-too-small":
            pytest.skip("this interpreter comes without its whole standard library")
        raise


def test_the_library_is_there(documents: list[Document]) -> None:
    sources = {document.source for document in documents}
    assert {"json/decoder.py", "argparse.py"} <= sources
    assert not any("site-packages" in source or "__pycache__" in source for source in sources)
    assert sum(len(document.text) for document in documents) > MIN_SOURCE_BYTES / 2


def test_groups_are_packages_and_modules(documents: list[Document]) -> None:
    groups = {document.source: document.group for document in documents}
    assert groups["json/decoder.py"] == "json"
    assert groups["argparse.py"] == "argparse"


def library(root: Path, size_bytes: int) -> Path:
    left_out = ("encodings/cp037.py", "site-packages/b.py", "pkg/data.txt", "test/c.py")
    for name in ("pkg/a.py", "pkg/test/d.py", "test.py", *left_out):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size_bytes)
    (root / "pkg" / "latin.py").write_bytes(b"\xe9")
    return root


def test_generated_installed_and_test_files_are_left_out(tmp_path: Path) -> None:
    drops = Account()
    root = library(tmp_path, MIN_SOURCE_BYTES // 2)
    documents = interpreter_documents(drops=drops, root=root)
    assert [document.source for document in documents] == ["pkg/a.py", "test.py"]
    assert drops.drops == {"generated": 1, "not_utf8": 1, "tests": 2}


def test_a_library_that_is_too_small_is_refused(tmp_path: Path) -> None:
    for root in (library(tmp_path / "small", 1000), tmp_path / "nothing"):
        with pytest.raises(Refusal) as refused:
            interpreter_documents(drops=Account(), root=root)
        assert refused.value.id == "corpus.interpreter-too-small"
        assert "apt install" in refused.value.fix
