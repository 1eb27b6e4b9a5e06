"""Documents out of files and trees: JSON lines, plain or compressed, and texts side by side.

A file is read by what its name says, whatever lies beside it. In a tree, a file that is no text is
left out and counted; a row that claims to be a document and is none is quarantined, and unless the
caller allows some of those, the first one stops the reading.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import NoReturn

from apr.corpus.document import DOCUMENT_LIMIT_BYTES, Document, document_hash, place
from apr.corpus.reading.account import REASONS_OF_A_REST, Account
from apr.corpus.reading.locations import is_url, location_text
from apr.corpus.reading.remote_tree import list_url
from apr.corpus.reading.span_reader import SpanReader
from apr.corpus.reading.spans import WHOLE_FILES, cut_spans
from apr.corpus.reading.tree import CorpusFile, file_format, list_tree, special_file
from apr.errors import DamagedFile, Refusal, UsageRefusal
from apr.files import require_exists

__all__ = [
    "DOCUMENT_LIMIT_BYTES",
    "Document",
    "document_hash",
    "list_files",
    "read_documents",
    "read_files",
]


def list_files(
    paths: Sequence[Path | str], *, drops: Account, exclude: Sequence[str] = ()
) -> list[CorpusFile]:
    """Every file that `paths` stand for: paths in the given order, trees sorted by name.

    Hidden files and directories are not part of a tree. Links, special files and what a pattern
    of `exclude` names below a directory are counted in `drops` and never opened.

    A text with `://` in it is a URL, which fsspec reads.

    Refuses: files.not-found, corpus.path-repeated, corpus.special-file, corpus.empty,
    corpus.no-driver, corpus.unknown-protocol.
    """
    _require_distinct(paths)
    return [file for path in paths for file in _list_path(path, drops, exclude)]


def read_documents(
    paths: Sequence[Path | str],
    *,
    content_field: str = "content",
    drops: Account,
    group_field: str | None = None,
    exclude: Sequence[str] = (),
    max_quarantined: int | None = 0,
) -> Iterator[Document]:
    """Stream the documents of files and trees, in a fixed order.

    The group of a text in a tree is the tree's first level: package, module or repository.

    Refuses: as list_files and read_files.
    """
    return read_files(
        list_files(paths, drops=drops, exclude=exclude),
        content_field=content_field,
        drops=drops,
        group_field=group_field,
        max_quarantined=max_quarantined,
    )


def read_files(
    files: Sequence[CorpusFile],
    *,
    content_field: str = "content",
    drops: Account,
    group_field: str | None = None,
    max_quarantined: int | None = 0,
) -> Iterator[Document]:
    """Stream the documents of listed files.

    The row after `max_quarantined` bad ones is refused; None allows any number.

    Refuses: corpus.jsonl-damaged, corpus.not-text, corpus.document-too-large,
    corpus.input-changed, corpus.empty, files.not-found, files.io-failed.
    """
    num_documents = 0
    allowed = None if max_quarantined is None else drops.num_quarantined + max_quarantined
    for span in cut_spans(files, span_bytes=WHOLE_FILES):
        reader = SpanReader(
            span, content_field=content_field, account=drops, group_field=group_field
        )
        for document in reader:
            _require_allowed(drops, allowed)
            num_documents += 1
            yield document
        _require_allowed(drops, allowed)
    if not num_documents:
        where = files[0].location if files else "the corpus"
        _refuse_empty(where, len(files), drops)


def _refuse_empty(where: object, num_files: int, drops: Account) -> NoReturn:
    raise Refusal(
        "corpus.empty",
        where,
        found=f"{num_files} files, no document; left out: {drops.describe()}",
        expected="at least one document with text",
        fix="name files or directories that hold text",
    )


def _require_distinct(paths: Sequence[Path | str]) -> None:
    seen: dict[PurePath, Path | str] = {}
    for path in paths:
        resolved = _resolved(path)
        if seen.setdefault(resolved, path) is not path:
            _refuse_repeated(path, seen[resolved])
    for resolved, path in seen.items():
        for parent in resolved.parents:
            if parent in seen:
                _refuse_repeated(path, seen[parent])


def _resolved(path: Path | str) -> PurePath:
    """One name for a place, however it was spelled."""
    protocol, separator, rest = str(path).partition("://")
    if separator and protocol not in ("file", "local"):
        return PurePosixPath(f"{protocol}:", rest.strip("/"))
    local = Path(rest) if separator else Path(path)
    require_exists(local, "a corpus file or directory")
    return local.resolve()


def _refuse_repeated(path: Path | str, other: Path | str) -> NoReturn:
    raise UsageRefusal(
        "corpus.path-repeated",
        path,
        found=f"it is also read as part of {other}",
        expected="each document once",
        fix="name each file or directory once",
    )


def _list_path(given: Path | str, drops: Account, exclude: Sequence[str]) -> list[CorpusFile]:
    path = Path(given)
    if is_url(str(given)):
        files = list_url(str(given), drops=drops, exclude=exclude)
    elif path.is_dir():
        files = list_tree(path, drops=drops, exclude=exclude)
    elif path.is_file():
        group = location_text(path.name)
        files = [CorpusFile(location_text(path), group, path.stat().st_size, in_tree=False)]
    else:
        raise special_file(path)
    if not files:
        _refuse_empty(given, 0, drops)
    return files


def _require_allowed(account: Account, allowed: int | None) -> None:
    if allowed is None or account.num_quarantined <= allowed:
        return
    first = account.entries[min(allowed, len(account.entries) - 1)]
    where, found = place(first["source"], first["row"]), f"{first['reason']}: {first['found']}"
    if first["reason"] == "document_too_large":
        raise Refusal(
            "corpus.document-too-large",
            where,
            found=found,
            expected="documents that an encoder can take whole",
            fix="cut the document into several",
        )
    if first["row"] is None:
        raise DamagedFile(
            "corpus.not-text", where, found=found, expected="UTF-8 text", fix="name a text file"
        )
    of_what = " of the decompressed text" if file_format(first["source"])[1] else ""
    repair = f"repair or remove row {first['row']}{of_what}, or name the right --content-field"
    raise DamagedFile(
        "corpus.jsonl-damaged",
        where,
        found=found,
        expected="one JSON object in UTF-8 with the text in the content field",
        fix="fetch the file again" if first["reason"] in REASONS_OF_A_REST else repair,
    )
