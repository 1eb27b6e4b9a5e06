"""Blocks of bytes cut into lines, in memory that does not grow with the longest line.

Lines come in lists, one per block: a call per line would cost more than the parsing of a short row.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# A document at its limit may take three times its bytes, when JSON spells it in ASCII.
LINE_LIMIT_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class OverlongLine:
    """A line that was passed over because it is longer than a row may be."""

    size_bytes: int


def split_lines(
    blocks: Iterable[bytes], *, limit_bytes: int = LINE_LIMIT_BYTES
) -> Iterator[list[bytes] | OverlongLine]:
    """The lines of a stream without their line feeds, which alone end a line.

    What follows the last line feed is a line if it holds a byte. Blocks are no longer than
    `limit_bytes`.
    """
    begun: list[bytes] = []
    begun_bytes = 0
    for block in blocks:
        *lines, rest = block.split(b"\n")
        if lines:
            begun.append(lines[0])
            begun_bytes += len(lines[0])
            if begun_bytes > limit_bytes:
                yield OverlongLine(begun_bytes)
                del lines[0]
            else:
                lines[0] = b"".join(begun)
            yield lines
            begun, begun_bytes = [], 0
        begun.append(rest)
        begun_bytes += len(rest)
        if begun_bytes > limit_bytes:
            begun.clear()
    if begun_bytes > limit_bytes:
        yield OverlongLine(begun_bytes)
    elif begun_bytes:
        yield [b"".join(begun)]
