"""Documents out of files: JSON lines, or any text file as one document.

A directory is one source and has one format: either JSON lines or a tree of text files. In a
tree, what is no text is left out and counted; in JSON lines, and in a file that was named
itself, it is refused.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from apr.corpus import jsonl
from apr.corpus.drops import Drops
from apr.corpus.tree import CorpusFile, list_tree, printable
from apr.errors import DamagedFile, Refusal, UsageRefusal
from apr.files import io_refusals, require_exists

# The encoder takes a document whole and needs some 300 bytes of memory per token of it.
DOCUMENT_LIMIT_BYTES = 8 << 20

_NOT_READ = (".parquet", ".jsonl.gz", ".jsonl.zst")


@dataclass(frozen=True, slots=True)
class Document:
    """One text, where it came from, and what it must not be separated from in a split."""

    text: str
    source: str
    """The file, as text that has a UTF-8 form."""
    group: str
    row: int | None = None
    """Which row of the file, from 1; None when the document is the whole file."""

    @property
    def place(self) -> str:
        """Where a person finds it: the file, with the row where there is one."""
        return self.source if self.row is None else f"{self.source}:{self.row}"


def list_files(paths: Sequence[Path], *, drops: Drops) -> list[CorpusFile]:
    """Every file that `paths` stand for: paths in the given order, trees sorted by name.

    Hidden files and directories are not part of a tree. Links and special files in a tree are
    counted in `drops` and never opened.

    Refuses: files.not-found, corpus.path-repeated, corpus.format-not-read,
    corpus.mixed-formats, corpus.special-file.
    """
    _require_distinct(paths)
    return [file for path in paths for file in _list_path(path, drops)]


def read_documents(
    paths: Sequence[Path], *, content_field: str = "content", drops: Drops
) -> Iterator[Document]:
    """Stream the documents of files and trees, in a fixed order.

    The group of a document in a tree is the tree's first level: package, module or repository.

    Refuses: as list_files and read_files.
    """
    return read_files(list_files(paths, drops=drops), content_field=content_field, drops=drops)


def read_files(
    files: Sequence[CorpusFile], *, content_field: str = "content", drops: Drops
) -> Iterator[Document]:
    """Stream the documents of listed files.

    Refuses: corpus.jsonl-damaged, corpus.not-text, corpus.document-too-large, corpus.empty.
    """
    num_documents = 0
    for file in files:
        read = _read_jsonl(file, content_field, drops) if file.is_jsonl else read_text(file, drops)
        for document in read:
            num_documents += 1
            yield document
    if not num_documents:
        raise Refusal(
            "corpus.empty",
            files[0].path.parent if files else "the corpus",
            found=f"{len(files)} files, no document; left out: {drops.describe()}",
            expected="at least one document with text",
            fix="name files or directories that hold text",
        )


def _require_distinct(paths: Sequence[Path]) -> None:
    seen: dict[Path, Path] = {}
    for path in paths:
        require_exists(path, "a corpus file or directory")
        resolved = path.resolve()
        if seen.setdefault(resolved, path) is not path:
            _refuse_repeated(path, seen[resolved])
    for resolved, path in seen.items():
        for parent in resolved.parents:
            if parent in seen:
                _refuse_repeated(path, seen[parent])


def _refuse_repeated(path: Path, other: Path) -> NoReturn:
    raise UsageRefusal(
        "corpus.path-repeated",
        path,
        found=f"it is also read as part of {other}",
        expected="each document once",
        fix="name each file or directory once",
    )


def _list_path(path: Path, drops: Drops) -> list[CorpusFile]:
    if path.is_dir():
        files = list_tree(path, drops=drops)
    elif path.is_file():
        files = [CorpusFile(path, path.name, path.stat().st_size, in_tree=False)]
    else:
        raise DamagedFile(
            "corpus.special-file",
            path,
            found="neither a regular file nor a directory",
            expected="a file or directory of text",
            fix="write the documents to a file first",
        )
    _require_one_format(path, files)
    return files


def _require_one_format(path: Path, files: list[CorpusFile]) -> None:
    for file in files:
        if file.path.name.lower().endswith(_NOT_READ):
            raise Refusal(
                "corpus.format-not-read",
                file.path,
                found=f"a {file.path.suffix} file",
                expected="JSON lines or plain text",
                fix="unpack or convert it to .jsonl first",
            )
    num_jsonl = sum(file.is_jsonl for file in files)
    if 0 < num_jsonl < len(files):
        raise Refusal(
            "corpus.mixed-formats",
            path,
            found=f"{num_jsonl} .jsonl files beside {len(files) - num_jsonl} other files",
            expected="one format per directory",
            fix="name the .jsonl files and the source directory as separate --corpus",
        )


def _read_jsonl(file: CorpusFile, content_field: str, drops: Drops) -> Iterator[Document]:
    for number, text in jsonl.read_rows(file.path, content_field=content_field):
        path = printable(file.path)
        source = f"{path}:{number}"
        if not text:
            drops.add("blank_line" if text is None else "empty", source)
            continue
        _require_bounded(source, text.encode("utf-8"))
        # A line says nothing of what it belongs together with, so it stands alone.
        yield Document(text, path, group=f"{file.group}:{number}", row=number)


def read_text(file: CorpusFile, drops: Drops) -> Iterator[Document]:
    """The one document of a text file, or none when it is no text and part of a tree.

    Refuses: corpus.not-text, corpus.document-too-large, files.not-found, files.io-failed.
    """
    with io_refusals(file.path), file.path.open("rb") as opened:
        data = opened.read(DOCUMENT_LIMIT_BYTES + 1)
    problem, text = _decode(data)
    if problem is None:
        yield Document(text, printable(file.path), file.group)
    elif file.in_tree or problem == "empty":
        drops.add(problem, printable(file.path))
    else:
        _require_bounded(printable(file.path), data)
        raise DamagedFile(
            "corpus.not-text",
            file.path,
            found=problem,
            expected="UTF-8 text",
            fix="name a text file",
        )


def _require_bounded(source: str, data: bytes) -> None:
    if len(data) <= DOCUMENT_LIMIT_BYTES:
        return
    raise Refusal(
        "corpus.document-too-large",
        source,
        found=f"more than {DOCUMENT_LIMIT_BYTES} bytes of text",
        expected="documents that an encoder can take whole",
        fix="cut the document into several",
    )


def _decode(data: bytes) -> tuple[str | None, str]:
    if not data:
        return "empty", ""
    if len(data) > DOCUMENT_LIMIT_BYTES:
        return "too_large", ""
    if b"\0" in data:
        return "binary", ""
    try:
        return None, data.decode("utf-8")
    except UnicodeDecodeError:
        return "not_utf8", ""
