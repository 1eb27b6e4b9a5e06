"""JSON lines written: one object per line, plain or compressed as the file's name says."""

import gzip
import json
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import zstandard

from apr.corpus.reading.tree import file_format
from apr.files import atomic_writer, require_absent

_ROW_FIELDS: tuple[str, ...] = ("content", "source", "group")


def write_rows(path: Path, rows: Iterable[tuple[str, ...]], *, overwrite: bool = False) -> int:
    """Write (content, source) or (content, source, group), one object per row; return how many.

    Refuses: files.exists, files.io-failed.
    Writes: `path`, whole or not at all.
    """
    objects = (dict(zip(_ROW_FIELDS, row, strict=False)) for row in rows)
    return write_objects(path, objects, overwrite=overwrite)


def write_objects(
    path: Path, objects: Iterable[Mapping[str, Any]], *, overwrite: bool = False
) -> int:
    """Write one JSON object per line and return how many.

    The same objects give the same bytes, compressed or not.

    Refuses: files.exists, files.io-failed.
    Writes: `path`, whole or not at all.
    """
    require_absent(path, overwrite=overwrite)
    num_objects = 0
    with atomic_writer(path) as target, _compressing(target, path) as write:
        for each in objects:
            write(json.dumps(each, ensure_ascii=False).encode("utf-8") + b"\n")
            num_objects += 1
    return num_objects


@contextmanager
def _compressing(target: IO[bytes], path: Path) -> Generator[Callable[[bytes], object]]:
    _, compression = file_format(path.name)
    if compression == "zst":
        # The checksum lets a reader tell a damaged file from a whole one.
        compressor = zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters(write_checksum=True)
        )
        with compressor.stream_writer(target, closefd=False) as writer:
            yield writer.write
    elif compression == "gz":
        # Without a name and a time, which would differ from run to run.
        with gzip.GzipFile("", "wb", fileobj=target, mtime=0) as writer:
            yield writer.write
    else:
        yield target.write
