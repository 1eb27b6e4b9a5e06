"""Which files a directory stands for: the same list on every machine and at every time."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from apr.corpus.reading.account import Account
from apr.corpus.reading.compressed import Compression
from apr.corpus.reading.locations import location_path, location_text
from apr.errors import DamagedFile
from apr.files import io_refusals

Kind = Literal["text", "jsonl", "parquet"]

_ROWS = (".jsonl", ".ndjson")
_COMPRESSIONS: tuple[tuple[str, Compression], ...] = (
    (".gz", "gz"),
    (".gzip", "gz"),
    (".zst", "zst"),
    (".zstd", "zst"),
)


@dataclass(frozen=True, slots=True)
class CorpusFile:
    """One file that will be read, as part of a tree or because it was named itself."""

    location: str
    group: str
    """What its documents must not be separated from in a split."""
    size_bytes: int
    in_tree: bool

    @property
    def path(self) -> Path:
        """Where a local file is."""
        return location_path(self.location)

    @property
    def format(self) -> tuple[Kind, Compression | None]:
        """How the file is read: by its name, whatever lies beside it."""
        return file_format(self.location)


def file_format(name: str) -> tuple[Kind, Compression | None]:
    """The kind of a file and its compression; what has no known ending is a text."""
    name = name.lower()
    if name.endswith(".parquet"):
        return "parquet", None
    if name.endswith(_ROWS):
        return "jsonl", None
    for ending, compression in _COMPRESSIONS:
        if name.removesuffix(ending).endswith(_ROWS) and name.endswith(ending):
            return "jsonl", compression
    return "text", None


def list_tree(
    root: Path,
    *,
    drops: Account,
    without: Collection[str] = frozenset(),
    exclude: Sequence[str] = (),
) -> list[CorpusFile]:
    """The regular files below `root`, sorted by the parts of their paths.

    Hidden files and directories, and directories named in `without`, are not part of a tree.
    Links and special files are counted in `drops` and never opened, and so is what `exclude`
    names: a pattern is compared with the path below `root` and with each directory on the way,
    and its `*` stands for any characters, slashes included. The group of a text is the tree's
    first level: package, module or repository.

    Refuses: files.not-found, files.io-failed.
    """
    files: list[tuple[tuple[str, ...], CorpusFile]] = []
    left_out: list[tuple[tuple[str, ...], str, str]] = []
    unread: list[tuple[str, ...]] = [()]
    with io_refusals(root):
        while unread:
            above = unread.pop()
            with os.scandir(root.joinpath(*above)) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    parts = (*above, entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name not in without:
                            unread.append(parts)
                        continue
                    reason = unread_reason(
                        "/".join(parts),
                        exclude,
                        is_link=entry.is_symlink(),
                        is_file=entry.is_file(follow_symlinks=False),
                    )
                    if reason is not None:
                        left_out.append((parts, reason, location_text(entry.path)))
                    else:
                        files.append((parts, _tree_file(entry, parts)))
    # A directory gives its entries in the order of its file system.
    for _, reason, location in sorted(left_out):
        drops.leave_out(reason, location)
    return [file for _, file in sorted(files, key=lambda pair: pair[0])]


def unread_reason(path: str, exclude: Sequence[str], *, is_link: bool, is_file: bool) -> str | None:
    """Why something in a tree that is no directory is not read, if it is not."""
    if is_link:
        return "symlink"
    if not is_file:
        return "special_file"
    for pattern in exclude:
        if fnmatchcase(path, pattern) or fnmatchcase(path, pattern.rstrip("/") + "/*"):
            return "excluded"
    return None


def special_file(where: object) -> DamagedFile:
    """The refusal of a pipe, a socket or a device that was named."""
    return DamagedFile(
        "corpus.special-file",
        where,
        found="neither a regular file nor a directory",
        expected="a file or directory of text",
        fix="write the documents to a file first",
    )


def tree_group(path: str) -> str:
    """The group of a file at this path below its tree."""
    # Rows stand alone, so theirs has to tell one file from the next.
    return path if file_format(path)[0] != "text" else path.partition("/")[0].removesuffix(".py")


def _tree_file(entry: os.DirEntry[str], parts: tuple[str, ...]) -> CorpusFile:
    size_bytes = entry.stat(follow_symlinks=False).st_size
    group = tree_group(location_text("/".join(parts)))
    return CorpusFile(location_text(entry.path), group, size_bytes, in_tree=True)
