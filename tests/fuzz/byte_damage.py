"""Damage that knows nothing of a format: bits, numbers, spans of bytes."""

from collections.abc import Sequence
from random import Random

_BORDERS = sorted(
    {
        abs(power + off)
        for bits in (0, 7, 8, 15, 16, 24, 31, 32, 40, 48, 53, 62, 63, 64)
        for power in (1 << bits,)
        for off in (-1, 0, 1)
    }
)


def number(random: Random, width: int, near: Sequence[int] = ()) -> int:
    """A number that readers get wrong: a border of a type, or something close to a true one."""
    if near and random.random() < 0.5:
        value = random.choice(near) + random.choice((-64, -8, -2, -1, 1, 2, 8, 64))
    else:
        value = random.choice(_BORDERS)
    return value % (1 << 8 * width)


def with_number(random: Random, data: bytes, at: int, width: int) -> bytes:
    """The data with the number at a position replaced."""
    old = int.from_bytes(data[at : at + width], "little")
    new = number(random, width, (old, len(data), len(data) - at))
    return data[:at] + new.to_bytes(width, "little") + data[at + width :]


def damaged(random: Random, data: bytes, other: bytes, *, front: int | None = None) -> bytes:
    """The data with one thing wrong; most often within its first `front` bytes."""
    size = len(data) if front is None or random.random() < 0.1 else min(front, len(data))
    at = random.randrange(size + 1)
    span = min(size - at, 1 << random.randrange(8))
    kind = random.randrange(10)
    if kind <= 1 and at < size:
        flipped = data[at] ^ 1 << random.randrange(8)
        return data[:at] + bytes([flipped]) + data[at + 1 :]
    if kind == 2 and at < size:
        return data[:at] + random.choice((b"\0", b"\x7f", b"\x80", b"\xff", b"{")) + data[at + 1 :]
    if kind <= 4:
        return with_number(random, data, at, random.choice((1, 2, 4, 8)))
    if kind == 5:
        return data[:at] + data[at + span :]
    if kind == 6:
        return data[:at] + data[at : at + span] + data[at:]
    if kind == 7:
        return data[:at] + random.randbytes(span) + data[at + random.choice((0, span)) :]
    if kind == 8 and other:
        start = random.randrange(len(other))
        piece = other[start : start + 1 + span]
        return data[:at] + piece + data[at + random.choice((0, len(piece))) :]
    return data[:at] if random.random() < 0.5 else data + random.randbytes(1 + span % 16)
