"""Which files a URL stands for: as for a directory on disk, by the same rules."""

from collections.abc import Iterator, Sequence
from typing import Any

from apr.corpus.reading.account import Account
from apr.corpus.reading.locations import location_text
from apr.corpus.reading.remote import filesystem_of, remote_refusals
from apr.corpus.reading.tree import CorpusFile, special_file, tree_group, unread_reason
from apr.errors import IoFailed


def list_url(url: str, *, drops: Account, exclude: Sequence[str] = ()) -> list[CorpusFile]:
    """The file at a URL, or the files below it, sorted by the parts of their paths.

    Refuses: corpus.no-driver, corpus.unknown-protocol, corpus.special-file, files.not-found,
    files.io-failed.
    """
    filesystem, root = filesystem_of(url)
    with remote_refusals(url):
        info = filesystem.info(root)
    if info["type"] == "directory":
        return _list_directory(filesystem, root, url, drops, exclude)
    if info["type"] != "file":
        raise special_file(url)
    name = location_text(root.rstrip("/").rpartition("/")[2])
    size_bytes = _size_bytes(info, url)
    return [CorpusFile(location_text(url), name, size_bytes, in_tree=False)]


def _list_directory(
    filesystem: Any, root: str, url: str, drops: Account, exclude: Sequence[str]
) -> list[CorpusFile]:
    files: list[tuple[tuple[str, ...], CorpusFile]] = []
    left_out: list[tuple[tuple[str, ...], str, str]] = []
    for parts, entry in _walk(filesystem, root.rstrip("/"), url):
        path = "/".join(parts)
        location = location_text(f"{url.rstrip('/')}/{path}")
        is_link, is_file = bool(entry.get("islink")), entry["type"] == "file"
        if reason := unread_reason(path, exclude, is_link=is_link, is_file=is_file):
            left_out.append((parts, reason, location))
            continue
        group = tree_group(location_text(path))
        size_bytes = _size_bytes(entry, location)
        files.append((parts, CorpusFile(location, group, size_bytes, in_tree=True)))
    for _, reason, location in sorted(left_out):
        drops.leave_out(reason, location)
    return [file for _, file in sorted(files, key=lambda pair: pair[0])]


def _walk(filesystem: Any, root: str, url: str) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Everything below a directory that is neither hidden nor a directory."""
    unread: list[tuple[str, ...]] = [()]
    while unread:
        above = unread.pop()
        directory = "/".join((root, *above))
        with remote_refusals(url):
            entries = filesystem.ls(directory, detail=True)
        for entry in entries:
            name = entry["name"].rstrip("/").rpartition("/")[2]
            # Some stores keep an object for the directory itself beside what it holds.
            if name.startswith(".") or entry["name"].strip("/") == directory.strip("/"):
                continue
            if entry["type"] == "directory" and not entry.get("islink"):
                unread.append((*above, name))
            else:
                yield (*above, name), entry


def _size_bytes(entry: dict[str, Any], where: str) -> int:
    size_bytes = entry.get("size")
    if not isinstance(size_bytes, int):
        raise IoFailed(
            "files.io-failed",
            where,
            found=f"a size of {size_bytes}",
            expected="a store that says how large its files are",
            fix="copy the file to a disk first",
        )
    return size_bytes
