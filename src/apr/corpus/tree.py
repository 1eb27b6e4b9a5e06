"""Which files a directory stands for: the same list on every machine and at every time."""

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from apr.corpus.drops import Drops
from apr.files import io_refusals


@dataclass(frozen=True)
class CorpusFile:
    """One file that will be read, as part of a tree or because it was named itself."""

    path: Path
    group: str
    """What its documents must not be separated from in a split."""
    size_bytes: int
    in_tree: bool

    @property
    def is_jsonl(self) -> bool:
        """Whether the file holds one document per line."""
        return self.path.suffix.lower() == ".jsonl"


def list_tree(
    root: Path, *, drops: Drops, without: Collection[str] = frozenset()
) -> list[CorpusFile]:
    """The regular files below `root`, sorted by the parts of their paths.

    Hidden files and directories, and directories named in `without`, are not part of a tree.
    Links and special files are counted in `drops` and never opened. A file's group is the
    tree's first level: package, module or repository.

    Refuses: files.not-found, files.io-failed.
    """
    files: list[tuple[tuple[str, ...], CorpusFile]] = []
    unread: list[tuple[str, ...]] = [()]
    with io_refusals(root):
        while unread:
            above = unread.pop()
            with os.scandir(root.joinpath(*above)) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    parts = (*above, entry.name)
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        group = parts[0].removesuffix(".py")
                        file = CorpusFile(Path(entry.path), group, status.st_size, in_tree=True)
                        files.append((parts, file))
                    elif not stat.S_ISDIR(status.st_mode):
                        is_link = stat.S_ISLNK(status.st_mode)
                        drops.add("symlink" if is_link else "special_file", printable(entry.path))
                    elif entry.name not in without:
                        unread.append(parts)
    return [file for _, file in sorted(files, key=lambda pair: pair[0])]


def printable(path: Path | str) -> str:
    """A path as text that has a UTF-8 form, whatever bytes its name holds."""
    return os.fsencode(path).decode("utf-8", errors="replace")
