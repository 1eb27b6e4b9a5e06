"""Files made to harm the GGUF reader: each is read or refused, in bounded time and memory."""

import functools
import struct
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import gguf_models
from tests.fuzz.gguf_target import fuzz_one

from apr.convert.gguf.reader import read_gguf
from apr.errors import Refusal


@functools.cache
def sound(family: str = "llama3") -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        made = gguf_models.model(gguf_models.FAMILIES[family])
        return made.write(Path(directory) / "model.gguf").read_bytes()


def front_bytes() -> int:
    return min(len(sound()), 9_000)


def test_the_sound_file_is_read_and_the_target_is_not_idle(tmp_path: Path) -> None:
    fuzz_one(sound())
    path = tmp_path / "model.gguf"
    path.write_bytes(sound())
    assert len(read_gguf(path).tensors) > 10


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_any_bytes_after_the_magic(data: bytes) -> None:
    fuzz_one(b"GGUF" + struct.pack("<I", 3) + data)


@settings(max_examples=400)
@given(st.data())
def test_a_sound_file_with_some_bytes_changed(data: st.DataObject) -> None:
    changed = bytearray(sound())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, front_bytes() - 8))
        value = data.draw(st.sampled_from([0, 1, 0xFF, 0x7F, 0x80]) | st.integers(0, 255))
        changed[at] = value
    fuzz_one(bytes(changed))


@settings(max_examples=300)
@given(
    at=st.integers(0, 9_000 - 8),
    value=st.sampled_from([0, 1, 1 << 31, 1 << 32, 1 << 60, 1 << 63, (1 << 64) - 1]),
)
def test_a_sound_file_with_one_number_changed(at: int, value: int) -> None:
    changed = bytearray(sound())
    changed[at : at + 8] = struct.pack("<Q", value)
    fuzz_one(bytes(changed))


@settings(max_examples=100)
@given(start=st.integers(0, 9_000), size=st.integers(1, 400), at=st.integers(0, 9_000))
def test_a_sound_file_with_a_part_repeated_or_left_out(start: int, size: int, at: int) -> None:
    data = sound()
    fuzz_one(data[:start] + data[start + size :])
    fuzz_one(data[:at] + data[start : start + size] + data[at:])


@pytest.mark.parametrize("kind", [8, 9, 10])
def test_a_long_array_costs_no_more_than_its_bytes(kind: int, tmp_path: Path) -> None:
    """As many elements as a file of a megabyte can claim to hold."""
    count = {8: 131_000, 9: 87_000, 10: 131_000}[kind]
    element = {8: bytes(8), 9: struct.pack("<IQ", 4, 0), 10: bytes(8)}[kind]
    key = struct.pack("<Q", 1) + b"a"
    body = key + struct.pack("<IIQ", 9, kind, count) + element * count
    path = tmp_path / "long.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + body + bytes(64))
    tracemalloc.start()
    try:
        assert read_gguf(path).fields["a"]
        assert tracemalloc.get_traced_memory()[1] < (24 << 20)
    finally:
        tracemalloc.stop()


def test_a_large_empty_file_is_refused_at_once(tmp_path: Path) -> None:
    """A sparse file of a terabyte whose counts fit into it."""
    path = tmp_path / "sparse.gguf"
    with path.open("wb") as file:
        file.write(struct.pack("<4sIQQ", b"GGUF", 3, 1 << 35, 1 << 35))
        file.truncate(1 << 40)
    tracemalloc.start()
    try:
        with pytest.raises(Refusal, match=r"gguf\.count"):
            read_gguf(path)
        assert tracemalloc.get_traced_memory()[1] < (4 << 20)
    finally:
        tracemalloc.stop()


def test_a_sparse_string_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "sparse.gguf"
    with path.open("wb") as file:
        file.write(struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, 1 << 39))
        file.truncate(1 << 40)
    tracemalloc.start()
    try:
        with pytest.raises(Refusal, match=r"gguf\.front-too-large"):
            read_gguf(path)
        assert tracemalloc.get_traced_memory()[1] < (4 << 20)
    finally:
        tracemalloc.stop()
