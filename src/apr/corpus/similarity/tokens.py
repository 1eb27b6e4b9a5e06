"""Texts as sequences of token hashes, a hundred megabytes a second, without an object per token.

A token is a run of letters, digits, underscores and bytes beyond ASCII, or a run of other visible
characters; white space and case do not matter. Its hash is a polynomial in its bytes: with the sum
of all bytes before it, each weighted by its position, a whole batch takes a few passes of numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

_SPACE, _WORD, _SIGN = 0, 1, 2
# Arrays of eight bytes for each byte of text then stay in the processor's cache.
_PIECE_BYTES = 1 << 17
_BASE = 0x9E3779B97F4A7C15
_MIXER = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)


@dataclass(frozen=True)
class Tokens:
    """The tokens of some texts, one after another."""

    hashes: NDArray[np.uint64]
    ends: NDArray[np.int64]
    """Where the tokens of each text end."""
    first_bytes: NDArray[np.uint8]
    """The first byte of each token, in lower case."""


def tokenize(texts: Sequence[str], *, words_only: bool = False) -> Tokens:
    """The tokens of each text, in order; with `words_only` without those of signs."""
    datas = [text.encode("utf-8") for text in texts]
    counts: list[int] = []
    hashes: list[NDArray[np.uint64]] = []
    first_bytes: list[NDArray[np.uint8]] = []
    at = 0
    while at < len(datas):
        batch = [datas[at]]
        at += 1
        size_bytes = len(batch[0])
        while at < len(datas) and size_bytes + len(datas[at]) < _PIECE_BYTES:
            batch.append(datas[at])
            size_bytes += len(datas[at]) + 1
            at += 1
        # A token never crosses a line end, so it separates texts as well as pieces.
        ends = np.cumsum([len(data) + 1 for data in batch])
        num_in_batch = np.zeros(len(batch), np.int64)
        for start, piece in _pieces(b"\n".join(batch)):
            found, starts, firsts = _tokenize_piece(np.frombuffer(piece, np.uint8), words_only)
            hashes.append(found)
            first_bytes.append(firsts)
            of_text = np.searchsorted(ends, starts + start, side="right")
            num_in_batch += np.bincount(of_text, minlength=len(batch))
        counts += num_in_batch.tolist()
    return Tokens(
        np.concatenate([np.empty(0, np.uint64), *hashes]),
        np.cumsum(counts, dtype=np.int64),
        np.concatenate([np.empty(0, np.uint8), *first_bytes]),
    )


def mix(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread every bit over all of them, in place."""
    hashes ^= hashes >> _HALF
    hashes *= _MIXER
    hashes ^= hashes >> _HALF
    return hashes


def _pieces(data: bytes) -> list[tuple[int, bytes]]:
    """Stretches of at most a piece, cut at line ends where there are any."""
    pieces: list[tuple[int, bytes]] = []
    start = 0
    while start < len(data):
        stop = start + _PIECE_BYTES
        if stop < len(data):
            stop = (data.rfind(b"\n", start, stop) + 1) or stop
        pieces.append((start, data[start:stop]))
        start = stop
    return pieces


def _tokenize_piece(
    data: NDArray[np.uint8], words_only: bool
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint8]]:
    kinds, values, powers, inverses = _tables()
    kind = kinds[data]
    changes = np.empty(len(data), np.bool_)
    changes[0] = True
    np.not_equal(kind[1:], kind[:-1], out=changes[1:])
    run_starts = np.flatnonzero(changes)
    run_ends = np.append(run_starts[1:], len(data))
    kept = kind[run_starts] == _WORD if words_only else kind[run_starts] != _SPACE
    starts, ends = run_starts[kept], run_ends[kept]
    weighted = values[data]
    weighted *= powers[: len(data)]
    sums = np.empty(len(data) + 1, np.uint64)
    sums[0] = 0
    np.cumsum(weighted, out=sums[1:])
    hashes = sums[ends]
    hashes -= sums[starts]
    hashes *= inverses[starts]
    return mix(hashes), starts, _lower()[data[starts]]


@cache
def _lower() -> NDArray[np.uint8]:
    return np.frombuffer(bytes(range(256)).lower(), np.uint8)


@cache
def _tables() -> tuple[
    NDArray[np.uint8], NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]
]:
    """By byte, its kind and its value; by position, its weight and the weight's inverse."""
    kinds = np.full(256, _SIGN, np.uint8)
    kinds[128:] = _WORD
    for byte in range(128):
        if bytes([byte]).isalnum() or byte == ord("_"):
            kinds[byte] = _WORD
        elif bytes([byte]).isspace():
            kinds[byte] = _SPACE
    values = mix(np.arange(1, 257, dtype=np.uint64) * np.uint64(_BASE))[_lower()]
    weights = [np.full(_PIECE_BYTES, base, np.uint64) for base in (_BASE, pow(_BASE, -1, 1 << 64))]
    for weight in weights:
        weight[0] = 1
        np.cumprod(weight, out=weight)
    return kinds, values, weights[0], weights[1]
