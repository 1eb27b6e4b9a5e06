"""Compressed streams are read to their own end, or to a fault that has a name."""

import gzip
import random
import zlib

import pytest
import zstandard

from apr.corpus.reading.compressed import Compression, DamagedStream, unpack

TEXT = random.Random(0).randbytes(300_000) * 2


def pack(data: bytes, compression: Compression) -> bytes:
    return gzip.compress(data, 1) if compression == "gz" else zstandard.compress(data)


def read(data: bytes, compression: Compression, block_bytes: int = 1 << 16) -> bytes:
    blocks = (data[at : at + block_bytes] for at in range(0, len(data), block_bytes))
    return b"".join(unpack(blocks, compression))


BOTH: list[Compression] = ["gz", "zst"]


@pytest.mark.parametrize("compression", BOTH)
@pytest.mark.parametrize("block_bytes", [1, 511, 512, 513, 1 << 20])
def test_members_and_frames_follow_one_another(compression: Compression, block_bytes: int) -> None:
    parts = [b"one\n", b"", b"two" * 10_000, b"\0\0"]
    data = b"".join(pack(part, compression) for part in parts)
    assert read(data, compression, block_bytes) == b"".join(parts)
    assert b"".join(unpack([data[:7], b"", data[7:]], compression)) == b"".join(parts)


@pytest.mark.parametrize("compression", BOTH)
def test_blocks_are_about_a_megabyte(compression: Compression) -> None:
    sizes = [len(block) for block in unpack([pack(bytes(50 << 20), compression)], compression)]
    assert sum(sizes) == 50 << 20
    assert max(sizes) <= 1 << 20
    assert len(sizes) < 100


def test_every_byte_arrives_whatever_the_last_block_holds() -> None:
    """zlib may hold back the end of a match when its output is full."""
    for size in range((1 << 20) - 3, (1 << 20) + 300, 7):
        assert len(read(gzip.compress(bytes(size)), "gz", 1 << 20)) == size


@pytest.mark.parametrize("compression", BOTH)
@pytest.mark.parametrize("cut", [0, 1, 4, 9, 17, 1000, -5, -1])
def test_a_stream_that_was_cut_is_truncated(compression: Compression, cut: int) -> None:
    data = pack(TEXT, compression)
    pieces: list[bytes] = []
    with pytest.raises(DamagedStream) as fault:  # noqa: PT012 (what came before counts)
        for piece in unpack([data[:cut]], compression):
            pieces.append(piece)
    assert fault.value.reason == "truncated"
    assert TEXT.startswith(b"".join(pieces))


@pytest.mark.parametrize("compression", BOTH)
def test_what_follows_the_last_member_is_no_stream(compression: Compression) -> None:
    for rest in (b"garbage", b"\1" * 100):
        with pytest.raises(DamagedStream) as fault:
            read(pack(b"text", compression) + rest, compression)
        assert fault.value.reason == "damaged"


def test_padding_after_a_gzip_member_is_passed_over() -> None:
    for padding in (b"\0", b"\0" * 100_000):
        assert read(gzip.compress(b"text") + padding, "gz") == b"text"
        assert read(gzip.compress(b"a") + padding + gzip.compress(b"b"), "gz") == b"ab"
    with pytest.raises(DamagedStream):
        read(b"\0" + gzip.compress(b"text"), "gz")


def test_skippable_frames_hold_no_text() -> None:
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    data = skippable + zstandard.compress(b"a") + skippable + zstandard.compress(b"b") + skippable
    assert read(data, "zst", 3) == b"ab"


def checked(data: bytes) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(write_checksum=True)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


@pytest.mark.parametrize(
    ("packed", "compression"), [(gzip.compress(TEXT, mtime=0), "gz"), (checked(TEXT), "zst")]
)
def test_a_flipped_bit_is_found(packed: bytes, compression: Compression) -> None:
    for place in (0, 2, len(packed) // 2, len(packed) - 6, len(packed) - 1):
        flipped = bytearray(packed)
        flipped[place] ^= 4
        with pytest.raises(DamagedStream):
            read(bytes(flipped), compression)


def test_a_window_that_needs_gigabytes_is_refused() -> None:
    # A frame header that asks for a window of 2 GiB, then an empty last block.
    header = bytes([0x28, 0xB5, 0x2F, 0xFD, 0x00, (31 - 10) << 3, 0x01, 0x00, 0x00])
    with pytest.raises(DamagedStream) as fault:
        read(header, "zst")
    assert "memory" in fault.value.found


def test_raw_deflate_is_no_gzip() -> None:
    with pytest.raises(DamagedStream):
        read(zlib.compress(b"text"), "gz")
