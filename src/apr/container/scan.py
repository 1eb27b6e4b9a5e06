"""One pass over every byte of a container: checksums, padding, and values that are no numbers.

The bytes are read, not mapped, so that a failing disk is an error and not a crash, and in order,
so that one pass serves the footer and every tensor's hash alike.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from apr.container import layout
from apr.container.advice import COPY_AGAIN
from apr.container.crc32 import RunningCrc32
from apr.container.extents import Extent
from apr.container.sections import Sections
from apr.container.values import count_non_finite
from apr.errors import DamagedFile
from apr.files import io_refusals
from apr.progress import Progress, Report

_CHUNK_BYTES = 8 << 20
_NOBODY: Mapping[str, Callable[[bytes], None]] = {}


@dataclass(frozen=True)
class Scan:
    """What is true of the bytes; judging them is for `integrity`."""

    num_bytes: int
    """Bytes read, footer included."""
    crc32: int
    """Of every byte before the footer."""
    footer_crc32: int | None
    """As the footer has it; None without a footer."""
    num_padding_bytes: int
    nonzero_padding_at: int | None
    """Position of the first padding byte that is not zero."""
    tensor_sha256: dict[str, str]
    """Of the tensors that were asked for."""
    file_sha256: str | None
    """Of the whole file, footer included, where it was asked for."""
    num_non_finite: dict[str, int]
    """NaN and infinite values (scales, in a quantised tensor) of every tensor that has any."""


def scan(
    source: IO[bytes],
    sections: Sections,
    *,
    where: str,
    progress: Report,
    hashed: Collection[str] = (),
    with_values: bool = False,
    with_file_sha256: bool = False,
    watchers: Mapping[str, Callable[[bytes], None]] = _NOBODY,
) -> Scan:
    """Read a whole container once.

    `watchers` are shown the bytes of the tensors they are named for, in order, whole elements or
    blocks at a time.

    Refuses: container.truncated, when the file became shorter since it was opened;
    files.io-failed.
    """
    num_padding_bytes = 0
    nonzero_padding_at: int | None = None
    digests = {name: hashlib.sha256() for name in hashed}
    whole = hashlib.sha256() if with_file_sha256 else None
    non_finite: Counter[str] = Counter()
    with RunningCrc32() as crc:
        for extent, at, chunk in _chunks(source, sections.extents, where):
            crc.add(chunk)
            if whole:
                whole.update(chunk)
            if extent.tensor:
                name = extent.tensor.name
                if name in digests:
                    digests[name].update(chunk)
                if name in watchers:
                    watchers[name](chunk)
                if with_values:
                    is_first = at == extent.start
                    non_finite[name] += count_non_finite(
                        extent.tensor.dtype, chunk, is_first=is_first
                    )
            elif extent.owner == "padding":
                num_padding_bytes += len(chunk)
                rest = chunk.lstrip(b"\0")
                if rest and nonzero_padding_at is None:
                    nonzero_padding_at = extent.stop - len(rest)
            progress(Progress(f"reading {where}", at + len(chunk), sections.end_of_data, "bytes"))
        crc32 = crc.value()
    footer = _footer(source, sections, where)
    if whole:
        whole.update(footer)
    return Scan(
        num_bytes=source.tell(),
        crc32=crc32,
        footer_crc32=int.from_bytes(footer, "little") if footer else None,
        num_padding_bytes=num_padding_bytes,
        nonzero_padding_at=nonzero_padding_at,
        file_sha256=whole.hexdigest() if whole else None,
        tensor_sha256={name: digest.hexdigest() for name, digest in digests.items()},
        num_non_finite={name: count for name, count in non_finite.items() if count},
    )


def _chunks(
    source: IO[bytes], extents: tuple[Extent, ...], where: str
) -> Iterator[tuple[Extent, int, bytes]]:
    source.seek(0)
    for extent in extents:
        block_bytes = layout.DTYPES[extent.tensor.dtype].block_bytes if extent.tensor else 1
        whole_blocks = _CHUNK_BYTES // block_bytes * block_bytes
        at = extent.start
        while at < extent.stop:
            chunk = _read(source, min(whole_blocks, extent.stop - at), where)
            yield extent, at, chunk
            at += len(chunk)


def _footer(source: IO[bytes], sections: Sections, where: str) -> bytes:
    return _read(source, layout.FOOTER_BYTES, where) if sections.has_footer else b""


def _read(source: IO[bytes], size_bytes: int, where: str) -> bytes:
    with io_refusals(where):
        data = source.read(size_bytes)
    if len(data) < size_bytes:
        raise DamagedFile(
            "container.truncated",
            where,
            found=f"the file ends at byte {source.tell()}",
            expected="the length it had when it was opened",
            fix=COPY_AGAIN,
        )
    return data
