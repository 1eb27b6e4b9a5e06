"""A corpus that every developer has: the sources of what is installed here, as .jsonl.zst files.

    python benchmarks/corpus_on_this_machine.py DIRECTORY --megabytes 500

Python, C headers, JavaScript and documentation of installed packages, each text once, in the
order of their hashes, in files of 16 MB of text, as published corpora are mixed and cut: every
tenth of it is like the whole.
"""

import argparse
import hashlib
import os
import sysconfig
from pathlib import Path

import orjson
import zstandard

SUFFIXES = (".py", ".pyi", ".h", ".hpp", ".c", ".js", ".ts", ".md", ".rst", ".pl", ".pm", ".html")
FILE_BYTES = 16_000_000
LARGEST_TEXT_BYTES = 1_000_000


def main() -> None:
    """Write a corpus and say what it holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--megabytes", type=int, default=500)
    options = parser.parse_args()
    num_documents, text_bytes = write_corpus(options.directory, options.megabytes * 1_000_000)
    print(f"{options.directory}: {num_documents} documents, {text_bytes / 1e6:.0f} MB of text")


def write_corpus(directory: Path, wanted_bytes: int) -> tuple[int, int]:
    """Write files of rows until there is enough text; return documents and bytes."""
    directory.mkdir(parents=True)
    rows: list[bytes] = []
    num_documents = text_bytes = file_bytes = num_files = 0
    for path, package in choose_files(wanted_bytes):
        text = read_text(path)
        if text is None:
            continue
        row = {"content": text, "path": str(path), "package": package}
        rows.append(orjson.dumps(row) + b"\n")
        num_documents += 1
        file_bytes += len(text.encode("utf-8"))
        if file_bytes >= FILE_BYTES:
            write_rows(directory / f"part-{num_files:05d}.jsonl.zst", rows)
            text_bytes += file_bytes
            rows, file_bytes, num_files = [], 0, num_files + 1
    if rows:
        write_rows(directory / f"part-{num_files:05d}.jsonl.zst", rows)
    return num_documents, text_bytes + file_bytes


def write_rows(path: Path, rows: list[bytes]) -> None:
    """One file of a corpus."""
    path.write_bytes(zstandard.ZstdCompressor(level=3).compress(b"".join(rows)))


def choose_files(wanted_bytes: int) -> list[tuple[Path, str]]:
    """So many bytes of distinct texts with their packages, ordered by hash."""
    chosen: dict[bytes, tuple[Path, str]] = {}
    num_bytes = 0
    roots = [
        sysconfig.get_path("purelib"),
        sysconfig.get_path("stdlib"),
        "/usr/include",
        "/usr/lib",
    ]
    for root in map(Path, (*roots, "/usr/share", "/usr/local")):
        for directory, names, files in os.walk(root):
            names.sort()
            for name in sorted(files):
                path = Path(directory, name)
                text = read_text(path) if name.endswith(SUFFIXES) else None
                if text is None:
                    continue
                data = text.encode("utf-8")
                digest = hashlib.blake2b(data, digest_size=16).digest()
                if digest in chosen:
                    continue
                chosen[digest] = path, package_of(path, root)
                num_bytes += len(data)
                if num_bytes >= wanted_bytes:
                    return [chosen[each] for each in sorted(chosen)]
    return [chosen[each] for each in sorted(chosen)]


def package_of(path: Path, root: Path) -> str:
    """The first level below the root, which on most systems is a package."""
    return path.relative_to(root).parts[0].removesuffix(".py")


def read_text(path: Path) -> str | None:
    """A file's text, None for what is no text, is a link, or is too large to be a source."""
    try:
        if path.is_symlink() or path.stat().st_size > LARGEST_TEXT_BYTES:
            return None
        return path.read_text(encoding="utf-8") or None
    except (OSError, UnicodeDecodeError):
        return None


if __name__ == "__main__":
    main()
