"""Malformed safetensors files: each is refused by name, in bounded time and memory."""

import json
import os
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.safetensors_target import fuzz_one
from tests.safetensors_bytes import entry, file_of, raw_file

from apr.convert.huggingface.safetensors_file import SafetensorsFile
from apr.errors import DamagedFile, Refusal

SOUND = safetensors.numpy.save(
    {"a": np.arange(2, dtype="<f4"), "b": np.ones((2, 3), "<f2"), "none": np.ones((0, 4), "<f4")},
    metadata={"format": "np"},
)
EIGHT = bytes(8)


@pytest.fixture
def bounded() -> Iterator[None]:
    """Four seconds and 256 MiB, whatever the file claims."""
    started_s = time.monotonic()
    tracemalloc.start()
    yield
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 256 << 20
    assert time.monotonic() - started_s < 4.0


def refusal_of(tmp_path: Path, data: bytes) -> Refusal:
    path = tmp_path / "attack.safetensors"
    path.write_bytes(data)
    with pytest.raises(DamagedFile) as caught:
        SafetensorsFile.open(path)
    refusal = caught.value
    assert refusal.exit_code == 4
    assert str(path) in refusal.where
    assert refusal.found
    assert refusal.expected
    assert refusal.fix
    return refusal


def test_the_harmless_twins_pass(tmp_path: Path) -> None:
    path = tmp_path / "sound.safetensors"
    for sound in (
        SOUND,
        file_of({"a": entry()}, EIGHT),
        file_of({}),
        file_of({"a": entry(shape=[], offsets=[0, 4])}, bytes(4)),
        file_of({"a": entry(), "empty": entry(shape=[0], offsets=[8, 8])}, EIGHT),
        raw_file(json.dumps({"a": entry()}).encode() + b"   ", EIGHT),
    ):
        path.write_bytes(sound)
        file = SafetensorsFile.open(path)
        assert sum(each.size_bytes for each in file.entries.values()) <= len(sound)
        assert fuzz_one(sound)


@pytest.mark.parametrize("length", range(len(SOUND)))
def test_cut_at_any_byte(tmp_path: Path, length: int) -> None:
    id = refusal_of(tmp_path, SOUND[:length]).id
    # Short of its end the tensors are not there; a cut length is no length.
    assert id in ("safetensors.truncated", "safetensors.offsets")


@pytest.mark.parametrize(
    ("data", "id"),
    [
        (b"", "safetensors.truncated"),
        (raw_file(b"{}", length=1 << 62), "safetensors.header-length"),
        (raw_file(b"{}", length=(1 << 64) - 1), "safetensors.header-length"),
        (raw_file(b"{}", length=100_000_001), "safetensors.header-length"),
        (raw_file(b"{}", length=100_000_000), "safetensors.truncated"),
        (raw_file(b""), "safetensors.header-damaged"),
        (raw_file(b"[]"), "safetensors.header-damaged"),
        (raw_file(b" {}"), "safetensors.header-damaged"),
        (raw_file(b"{}\n"), "safetensors.header-damaged"),
        (raw_file(b"{}{}"), "safetensors.header-damaged"),
        (raw_file(b'{"a": NaN}'), "safetensors.header-damaged"),
        (raw_file(b'{"a": 1e999}'), "safetensors.header-damaged"),
        (raw_file(b'{"a": {}, "a": {}}'), "safetensors.header-damaged"),
        (raw_file(b'{"\xff": {}}'), "safetensors.header-damaged"),
        (raw_file(b'{"\\ud800": {}}'), "safetensors.header-damaged"),
        (
            raw_file(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
            "safetensors.header-damaged",
        ),
        (raw_file(b'{"a": ' + b"9" * 5000 + b"}"), "safetensors.header-damaged"),
        (raw_file(b"\x80\x04K\x01." * 20), "safetensors.header-damaged"),
        (file_of({"__metadata__": []}), "safetensors.metadata"),
        (file_of({"__metadata__": {"a": 1}}), "safetensors.metadata"),
        (file_of({"__metadata__": None}), "safetensors.metadata"),
        (file_of({"a": 1}), "safetensors.entry"),
        (file_of({"a": {}}), "safetensors.entry"),
        (file_of({"": entry()}, EIGHT), "safetensors.entry"),
        (file_of({"a": entry() | {"more": 1}}, EIGHT), "safetensors.entry"),
        (file_of({"a": entry("F33")}, EIGHT), "safetensors.dtype"),
        (file_of({"a": entry("f32")}, EIGHT), "safetensors.dtype"),
        (file_of({"a": entry(["F32"])}, EIGHT), "safetensors.dtype"),
        (file_of({"a": entry("F8_E4M3", [8])}, EIGHT), "safetensors.dtype"),
        (file_of({"a": entry(shape=2)}, EIGHT), "safetensors.shape"),
        (file_of({"a": entry(shape=[-2])}, EIGHT), "safetensors.shape"),
        (file_of({"a": entry(shape=[2.0])}, EIGHT), "safetensors.shape"),
        (file_of({"a": entry(shape=[True, 2])}, EIGHT), "safetensors.shape"),
        (file_of({"a": entry(shape=[1 << 63, 0], offsets=[0, 0])}), "safetensors.shape"),
        (file_of({"a": entry(shape=[1 << 32, 1 << 32])}, EIGHT), "safetensors.shape"),
        (file_of({"a": entry(shape=[1] * 9)}, EIGHT), "safetensors.shape"),
        (file_of({"a": entry(offsets=[0])}, EIGHT), "safetensors.offsets"),
        (file_of({"a": entry(offsets=[0, 8, 8])}, EIGHT), "safetensors.offsets"),
        (file_of({"a": entry(offsets=[8, 0])}, EIGHT), "safetensors.offsets"),
        (file_of({"a": entry(offsets=[-8, 0])}, EIGHT), "safetensors.offsets"),
        (file_of({"a": entry(offsets=[0.0, 8.0])}, EIGHT), "safetensors.offsets"),
        (file_of({"a": entry(offsets=[False, 8])}, EIGHT), "safetensors.offsets"),
        # No count to the reference library, and 0 to Python.
        (
            raw_file(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[-0,8]}}', EIGHT),
            "safetensors.offsets",
        ),
        (file_of({"a": entry(offsets=[0, 9])}, EIGHT), "safetensors.offsets"),
        (file_of({"a": entry(offsets="08")}, EIGHT), "safetensors.offsets"),
        (file_of({"a": entry(offsets=[0, 1 << 70])}, EIGHT), "safetensors.offsets"),
        (file_of({"a": entry(shape=[3])}, EIGHT), "safetensors.size"),
        (file_of({"a": entry(shape=[1])}, EIGHT), "safetensors.size"),
        (file_of({"a": entry("F16")}, EIGHT), "safetensors.size"),
        (file_of({"a": entry()}, EIGHT + b"\0"), "safetensors.not-tiled"),
        (file_of({}, b"\0"), "safetensors.not-tiled"),
        (file_of({"a": entry(offsets=[8, 16])}, EIGHT * 2), "safetensors.not-tiled"),
        (file_of({"a": entry(), "b": entry()}, EIGHT), "safetensors.not-tiled"),
        (
            file_of({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)),
            "safetensors.not-tiled",
        ),
        (
            file_of({"a": entry(), "b": entry(offsets=[12, 20])}, bytes(20)),
            "safetensors.not-tiled",
        ),
        (
            file_of({"a": entry(), "b": entry(shape=[0], offsets=[4, 4])}, EIGHT),
            "safetensors.not-tiled",
        ),
    ],
)
def test_each_lie_has_its_name(tmp_path: Path, bounded: None, data: bytes, id: str) -> None:
    assert refusal_of(tmp_path, data).id == id
    assert not fuzz_one(data)


def test_narrow_floats_are_named(tmp_path: Path) -> None:
    refusal = refusal_of(tmp_path, file_of({"a": entry("F8_E5M2", [8])}, EIGHT))
    assert "floats of less than 16 bits" in refusal.found


@pytest.mark.parametrize(
    "header",
    [
        b"{" + b",".join(b'"%d":{}' % n for n in range(1_000_000)) + b"}",
        b'{"a":[' + b",".join([b"1"] * 1_000_000) + b"]}",
        b"{"
        + b",".join(
            b'"%d":{"dtype":"F32","shape":[],"data_offsets":[0,0]}' % n for n in range(17_000)
        )
        + b"}",
    ],
)
def test_a_flood_of_entries_costs_little(tmp_path: Path, bounded: None, header: bytes) -> None:
    assert refusal_of(tmp_path, raw_file(header)).id == "safetensors.too-many-tensors"


def test_a_huge_sparse_file_is_refused_without_reading_it(tmp_path: Path, bounded: None) -> None:
    path = tmp_path / "attack.safetensors"
    path.write_bytes(file_of({"a": entry()}, EIGHT))
    os.truncate(path, 1 << 40)
    with pytest.raises(DamagedFile) as caught:
        SafetensorsFile.open(path)
    assert caught.value.id == "safetensors.not-tiled"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_does_not_block(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "x")
    with pytest.raises(DamagedFile) as caught:
        SafetensorsFile.open(tmp_path / "x")
    assert caught.value.id == "safetensors.not-a-file"


def test_a_file_that_shrinks_or_changes_after_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(SOUND)
    tensor = SafetensorsFile.open(path).tensor("a")
    assert len(list(tensor.chunks())) == 1
    os.truncate(path, len(SOUND) - 1)
    with pytest.raises(DamagedFile) as caught:
        list(tensor.chunks())
    assert caught.value.id == "safetensors.changed"


def test_a_file_that_shrinks_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apr.convert.huggingface.safetensors_file.CHUNK_BYTES", 4)
    path = tmp_path / "x.safetensors"
    path.write_bytes(SOUND)
    chunks = iter(SafetensorsFile.open(path).tensor("a").chunks())
    next(chunks)
    os.truncate(path, 20)
    with pytest.raises(DamagedFile) as caught:
        next(chunks)
    assert caught.value.id == "safetensors.truncated"


@settings(max_examples=300)
@given(st.data())
def test_mutations_are_refused_or_read_as_the_reference_reads_them(data: st.DataObject) -> None:
    mutated = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at] = data.draw(st.integers(0, 255))
    if fuzz_one(bytes(mutated)):
        # What is taken here the library takes too.
        assert safetensors.deserialize(bytes(mutated)) is not None


@settings(max_examples=200)
@given(
    st.dictionaries(
        st.text(max_size=5),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "F16", "BOOL", "F8_E4M3", "x"]),
                "shape": st.lists(st.integers(-1, 1 << 64), max_size=3),
                "data_offsets": st.lists(st.integers(-1, 64), max_size=3),
            }
        ),
        max_size=3,
    ),
    st.binary(max_size=64),
)
def test_any_entries_are_refused_or_sound(entries: dict[str, Any], data: bytes) -> None:
    fuzz_one(file_of(entries, data))
