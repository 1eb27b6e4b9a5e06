"""Malformed containers: each is refused by name, in bounded time and memory, and never crashes."""

import struct
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.container_files import (
    GOLDEN,
    GOLDEN_DATA_AT,
    Row,
    build,
    f32,
    one_bit_flipped,
    resealed,
    version_1,
    with_header,
)

from apr.container.reader import Container
from apr.errors import DamagedFile, PathNotFound, Refusal

A, B = f32("a", 1.0, 2.0), f32("b", *range(32))
PLAIN: dict[str, Any] = {"model_type": "x"}


@pytest.fixture
def bounded() -> Iterator[None]:
    """Two seconds and 64 MiB, whatever the file claims."""
    started_s = time.monotonic()
    tracemalloc.start()
    yield
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 64 << 20
    assert time.monotonic() - started_s < 2.0


def refusal_of(path: Path, data: bytes) -> Refusal:
    path.write_bytes(data)
    with pytest.raises(Refusal) as caught, Container.open(path) as container:
        container.verify()
    refusal = caught.value
    assert str(path) in refusal.where
    assert refusal.found
    assert refusal.expected
    assert refusal.fix
    return refusal


def id_of(path: Path, data: bytes) -> str:
    return refusal_of(path, data).id


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "attack.apr"


def test_the_harmless_twin_passes(path: Path) -> None:
    for sound in (GOLDEN, build(PLAIN, [A, B]), build(PLAIN), with_header(GOLDEN, version=(2, 1))):
        path.write_bytes(sound)
        with Container.open(path) as container:
            assert container.verify().size_bytes == len(sound)


@pytest.mark.parametrize(
    ("length", "id"),
    [
        (0, "container.truncated"),
        (1, "container.truncated"),
        (4, "container.truncated"),
        (63, "container.truncated"),
        (64, "container.truncated"),
        (172, "container.truncated"),
        (192, "container.truncated"),
        (270, "container.truncated"),
        (319, "container.truncated"),
        (320, "container.tensor-out-of-bounds"),
        (328, "container.tensor-out-of-bounds"),
        (407, "container.tensor-out-of-bounds"),
        (408, "container.truncated"),
        (447, "container.truncated"),
        (448, "container.footer-missing"),
        (449, "container.length"),
        (451, "container.length"),
    ],
)
def test_cut_at_a_border(path: Path, length: int, id: str) -> None:
    assert id_of(path, GOLDEN[:length]) == id


def test_cut_at_every_byte(path: Path) -> None:
    for length in range(len(GOLDEN)):
        assert refusal_of(path, GOLDEN[:length]).exit_code == 4, length


def test_one_bit_flipped_in_every_byte(path: Path) -> None:
    for at, damaged in one_bit_flipped(GOLDEN):
        assert refusal_of(path, damaged).exit_code == 4, at


@pytest.mark.parametrize("extra", [1, 4, 60, 64, 1000])
def test_bytes_appended(path: Path, extra: int) -> None:
    assert id_of(path, GOLDEN + bytes(extra)) == "container.length"


@pytest.mark.parametrize(
    ("data", "id", "found"),
    [
        (b"", "container.truncated", "0 bytes"),
        (b"hello", "container.not-apr", "b'hell'"),
        (b"{}", "container.not-apr", "b'{}'"),
        (bytes(452), "container.not-apr", r"b'\x00\x00\x00\x00'"),
        (b"GGUF" + bytes(100), "container.not-apr", "GGUF"),
        (b"APR1" + bytes(100), "container.unsupported-magic", "APR1"),
        (b"APR2" + bytes(100), "container.unsupported-magic", "APR2"),
        (version_1(), "container.version-1", "APRN"),
        (version_1()[:20], "container.version-1", "cut inside its header"),
    ],
)
def test_other_files(path: Path, data: bytes, id: str, found: str) -> None:
    refusal = refusal_of(path, data)
    assert (refusal.id, refusal.exit_code) == (id, 4)
    assert found in refusal.found


def test_version_1_is_described(path: Path) -> None:
    found = refusal_of(path, version_1()).found
    assert "linear regression" in found
    assert "3 bytes of payload" in found
    assert "zstd" in found
    assert "quality 85" in found


@pytest.mark.parametrize(
    ("flag", "name"),
    [(1, "LZ4_COMPRESSED"), (2, "ZSTD_COMPRESSED"), (4, "ENCRYPTED"), (0x800, "COLUMN_MAJOR")],
)
def test_flags_that_change_what_bytes_mean(path: Path, flag: int, name: str) -> None:
    refusal = refusal_of(path, with_header(GOLDEN, flags=0x400 | flag))
    assert refusal.id == "container.unsupported-flag"
    assert name in refusal.found


def test_one_file_of_several(path: Path) -> None:
    sharding = {"shard_count": 3, "shard_index": 1, "total_size": 0, "pattern": None}
    refusal = refusal_of(path, build(PLAIN | {"sharding": sharding}, [A], flags=0x410))
    assert refusal.id == "container.sharded"
    assert "file 1 of 3" in refusal.found
    assert id_of(path, build(PLAIN, [A], flags=0x410)) == "container.sharded"


def test_header_checksum(path: Path) -> None:
    damaged = GOLDEN[:44] + b"\1" + GOLDEN[45:]
    assert id_of(path, damaged) == "container.header-checksum"


@pytest.mark.parametrize(
    ("fields", "id"),
    [
        ({"metadata_offset": 0}, "container.section-bounds"),
        ({"metadata_offset": 63}, "container.section-bounds"),
        ({"metadata_offset": 65}, "container.metadata-not-json"),
        ({"metadata_offset": 2**64 - 1}, "container.section-bounds"),
        ({"metadata_bytes": 0}, "container.metadata-not-json"),
        ({"metadata_bytes": 108}, "container.metadata-not-json"),
        ({"metadata_bytes": 128}, "container.metadata-not-json"),
        ({"metadata_bytes": 129}, "container.section-bounds"),
        ({"metadata_bytes": 2**32 - 1}, "container.section-bounds"),
        ({"index_offset": 0}, "container.section-bounds"),
        ({"index_offset": 191}, "container.index-damaged"),
        ({"index_offset": 320}, "container.index-damaged"),
        ({"index_offset": 2**64 - 1}, "container.section-bounds"),
        ({"data_offset": 191}, "container.section-bounds"),
        ({"data_offset": 256}, "container.index-damaged"),
        ({"data_offset": 384}, "container.tensor-out-of-bounds"),
        ({"data_offset": 453}, "container.truncated"),
        ({"data_offset": 2**64 - 1}, "container.truncated"),
        ({"index_offset": 2**63, "data_offset": 2**63}, "container.truncated"),
        ({"num_tensors": 0}, "container.hole"),
        ({"num_tensors": 1}, "container.hole"),
        ({"num_tensors": 3}, "container.index-unsorted"),
        ({"num_tensors": 2**32 - 1}, "container.index-damaged"),
    ],
)
@pytest.mark.usefixtures("bounded")
def test_header_fields_that_lie(path: Path, fields: dict[str, int], id: str) -> None:
    refusal = refusal_of(path, with_header(GOLDEN, **fields))
    assert (refusal.id, refusal.exit_code) == (id, 4)


@pytest.mark.parametrize(
    ("metadata", "id"),
    [
        (b"", "container.metadata-not-json"),
        (b"{", "container.metadata-not-json"),
        (b"[]", "container.metadata-not-json"),
        (b"null", "container.metadata-not-json"),
        (b"{} {}", "container.metadata-not-json"),
        (b'\xef\xbb\xbf{"model_type":"x"}', "container.metadata-not-json"),
        (b'{"model_type":"\xff"}', "container.metadata-not-json"),
        (b'{"model_type":"x","model_type":"x"}', "container.metadata-not-json"),
        (b'{"free":{"a":1,"a":1}}', "container.metadata-not-json"),
        (b'{"free":NaN}', "container.metadata-not-json"),
        (b'{"rope_theta":NaN}', "container.metadata-not-json"),
        (b'{"rope_theta":Infinity}', "container.metadata-not-json"),
        (b'{"rope_theta":1e999}', "container.metadata-not-json"),
        (b'{"free":-1e999}', "container.metadata-not-json"),
        (b'{"free":"\\ud800"}', "container.metadata-not-json"),
        (b'{"\\uDFFF":1}', "container.metadata-not-json"),
        (b'{"free":' + b"9" * 5000 + b"}", "container.metadata-not-json"),
        (b'{"free":' + b"[" * 127 + b"]" * 127 + b"}", "container.metadata-not-json"),
        (b'{"free":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "container.metadata-not-json"),
        (b"[" * 1_000_000, "container.metadata-not-json"),
        (b'{"rope_theta":3.5e38}', "container.metadata-value"),
        (b'{"rope_theta":"10000"}', "container.metadata-value"),
        (b'{"rope_theta":true}', "container.metadata-value"),
        (b'{"model_type":null}', "container.metadata-value"),
        (b'{"model_type":7}', "container.metadata-value"),
        (b'{"total_size":null}', "container.metadata-value"),
        (b'{"param_count":null}', "container.metadata-value"),
        (b'{"param_count":-1}', "container.metadata-value"),
        (b'{"param_count":18446744073709551616}', "container.metadata-value"),
        (b'{"hidden_size":4.0}', "container.metadata-value"),
        (b'{"hidden_size":true}', "container.metadata-value"),
        (b'{"hidden_size":"4"}', "container.metadata-value"),
        (b'{"rope_type":4294967296}', "container.metadata-value"),
        (b'{"license":[]}', "container.metadata-value"),
        (b'{"quantization":{"quant_type":"q4"}}', "container.metadata-value"),
        (b'{"special_tokens":{"eos_token":7}}', "container.metadata-value"),
        (b'{"num_layers":2,"num_hidden_layers":3}', "container.metadata-alias"),
        (b'{"n_layers":2,"num_hidden_layers":3}', "container.metadata-alias"),
        (b'{"num_layers":2,"num_hidden_layers":2.0}', "container.metadata-alias"),
        (b'{"num_layers":1,"n_layer":true}', "container.metadata-alias"),
        (b'{"rms_norm_eps":1e-6,"norm_eps":1e-5}', "container.metadata-alias"),
        (b'{"num_hidden_layers":2.0}', "container.metadata-value"),
    ],
)
@pytest.mark.usefixtures("bounded")
def test_metadata_that_other_readers_would_wipe_or_misread(
    path: Path, metadata: bytes, id: str
) -> None:
    refusal = refusal_of(path, build(metadata, [A]))
    assert (refusal.id, refusal.exit_code) == (id, 4)


def test_conflicting_spellings_are_both_named(path: Path) -> None:
    found = refusal_of(path, build(b'{"num_layers":2,"n_layer":3}', [A])).found
    assert found == "num_layers=2, n_layer=3"


@pytest.mark.parametrize(
    ("rows", "id"),
    [
        ([B, A], "container.index-unsorted"),
        ([A, A], "container.tensor-repeated"),
        ([A, f32("a", 9.0)], "container.tensor-repeated"),
        ([Row(b"\xff", 0, (2,), A.data)], "container.tensor-name"),
        ([Row(b"a", 2, (4,), A.data)], "container.dtype-old-bf16"),
        ([Row(b"a", 10, (4,), A.data)], "container.dtype-unknown"),
        ([Row(b"a", 255, (4,), A.data)], "container.dtype-unknown"),
        ([Row(b"a", 0, (3,), A.data)], "container.tensor-size"),
        ([Row(b"a", 1, (2,), A.data)], "container.tensor-size"),
        ([Row(b"a", 0, (), A.data)], "container.tensor-size"),
        ([Row(b"a", 0, (0,), A.data)], "container.tensor-size"),
        ([Row(b"a", 0, (2,), A.data, size=7)], "container.tensor-size"),
        ([Row(b"a", 0, (2, 2**62), A.data)], "container.tensor-shape"),
        ([Row(b"a", 0, (2**64 - 1,) * 8, A.data)], "container.tensor-shape"),
        ([Row(b"a", 0, (0, 2**63), b"")], "container.tensor-shape"),
        ([Row(b"a", 0, (1,) * 9, b"\0\0\0\0")], "container.tensor-shape"),
        ([Row(b"a", 0, (1,) * 255, b"\0\0\0\0")], "container.tensor-shape"),
        ([Row(b"a", 0, (2,), A.data, offset=2**64 - 1)], "container.tensor-out-of-bounds"),
        ([Row(b"a", 0, (2,), A.data, offset=64)], "container.tensor-out-of-bounds"),
        ([Row(b"a", 0, (2**40,), b"", size=2**42)], "container.tensor-out-of-bounds"),
        ([Row(b"a", 0, (0,), b"", offset=2**40)], "container.tensor-out-of-bounds"),
        ([A, Row(b"b", 0, (2,), A.data, offset=0)], "container.tensors-overlap"),
        ([A, Row(b"b", 0, (2,), A.data, offset=4)], "container.tensors-overlap"),
        ([A, Row(b"b", 0, (2,), A.data + bytes(120), offset=128, size=8)], "container.hole"),
        ([Row(b"a", 12, (256,), bytes(143))], "container.tensor-size"),
        ([Row(b"a", 14, (2, 200), bytes(210))], "container.tensor-size"),
        ([Row(b"a", 128, (33,), bytes(18))], "container.tensor-size"),
        ([Row(b"a", 129, (3,), bytes(3))], "container.tensor-size"),
    ],
)
@pytest.mark.usefixtures("bounded")
def test_index_rows_that_lie(path: Path, rows: list[Row], id: str) -> None:
    refusal = refusal_of(path, build(PLAIN, rows))
    assert (refusal.id, refusal.exit_code) == (id, 4)


def test_a_row_cut_short(path: Path) -> None:
    # The second row's name would run past the section.
    damaged = resealed(GOLDEN, at=226, new=struct.pack("<H", 65535))
    assert id_of(path, damaged) == "container.index-damaged"
    # Its number of dimensions likewise.
    damaged = resealed(GOLDEN, at=237, new=b"\xff")
    assert id_of(path, damaged) == "container.index-damaged"


@pytest.mark.parametrize(("start", "stop"), [(173, 192), (270, 320), (328, 384), (408, 448)])
def test_padding_that_is_not_zero(path: Path, start: int, stop: int) -> None:
    for at in (start, stop - 1):
        refusal = refusal_of(path, resealed(GOLDEN, at=at, new=b"\1"))
        assert refusal.id == "container.padding-not-zero"
        assert refusal.found.endswith(f" at {at}")


def test_data_and_footer(path: Path) -> None:
    damaged = GOLDEN[:GOLDEN_DATA_AT] + b"\1" + GOLDEN[GOLDEN_DATA_AT + 1 :]
    assert id_of(path, damaged) == "container.footer-mismatch"
    assert id_of(path, GOLDEN[:-1] + b"\0") == "container.footer-mismatch"
    assert id_of(path, GOLDEN[:-4]) == "container.footer-missing"


@pytest.mark.usefixtures("bounded")
def test_sections_too_large_to_be_honest(path: Path) -> None:
    # Sparse, so that the lie costs its author nothing either.
    for fields in (
        {"metadata_bytes": 2**31, "index_offset": 2**32, "data_offset": 2**32},
        {"data_offset": 2**32},
    ):
        with path.open("wb") as file:
            file.write(with_header(GOLDEN, **fields)[:192])
            file.truncate(2**33)
        with pytest.raises(DamagedFile) as caught:
            Container.open(path)
        assert caught.value.id == "container.section-too-large"


@pytest.mark.usefixtures("bounded")
def test_more_tensors_than_any_model_has(path: Path) -> None:
    with path.open("wb") as file:
        file.write(with_header(GOLDEN, num_tensors=300_000, data_offset=1 << 25)[:192])
        file.truncate(1 << 26)
    with pytest.raises(DamagedFile) as caught:
        Container.open(path)
    assert caught.value.id == "container.index-damaged"
    assert "at most 262144" in caught.value.expected


def test_many_tensors_are_read(path: Path) -> None:
    rows = [Row(f"{number:06d}".encode(), 7, (0,), b"", offset=0) for number in range(20_000)]
    path.write_bytes(build(PLAIN, rows))
    with Container.open(path) as container:
        assert list(container.tensors)[-1] == "019999"


def test_large_but_honest_metadata(path: Path) -> None:
    words = [f"word {number}" for number in range(100_000)]
    path.write_bytes(build(PLAIN | {"tokenizer.vocabulary": words}, [A]))
    with Container.open(path) as container:
        assert container.metadata.free["tokenizer.vocabulary"] == words


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    for path, id in (
        (tmp_path, "container.not-a-file"),
        (tmp_path / "pipe", "container.not-a-file"),
        (tmp_path / "absent.apr", "files.not-found"),
    ):
        with pytest.raises(PathNotFound) as caught:
            Container.open(path)
        assert (caught.value.id, caught.value.exit_code) == (id, 3)


def test_what_foreign_writers_may_do_is_read_and_noted(path: Path) -> None:
    nulls = {"hidden_size": None, "rope_theta": None, "license": None}
    for data, note in (
        (with_header(GOLDEN, version=(2, 1)), "header version 2.1"),
        (with_header(GOLDEN, version=(9, 0)), "header version 9.0"),
        (with_header(GOLDEN, flags=0), "row-major"),
        (with_header(GOLDEN, flags=0x8400), "0x8000"),
        (with_header(GOLDEN, reserved=b"\1" * 20), "reserved"),
        (GOLDEN[:-4], "no footer"),
        (build(PLAIN | {"num_layers": 2, "n_layer": None}, [A]), "num_layers, n_layer"),
        (build(PLAIN | {"num_layers": 2, "n_layer": 2}, [A]), "num_layers, n_layer"),
        (build(PLAIN | nulls, [A]), None),
        (build(PLAIN | {"n_layer": 2}, [A]), None),
        (build(PLAIN, [A, Row(b"b", 0, (0,), b"", offset=64)]), None),
        # The streaming Rust writer sorts only the index.
        (build(PLAIN, [Row(b"a", 0, (2,), A.data, offset=64), _at(B, 0)]), None),
    ):
        path.write_bytes(data)
        with Container.open(path) as container:
            assert len(container.tensors) >= 1
            notes = container.sections.notes
        assert notes == () if note is None else note in "; ".join(notes)


def test_old_codes_are_the_types_they_meant(path: Path) -> None:
    rows = [Row(b"a", 8, (32,), bytes(18)), Row(b"b", 9, (4,), bytes(8))]
    path.write_bytes(build(PLAIN, rows))
    with Container.open(path) as container:
        assert [entry.dtype for entry in container.tensors.values()] == ["q4", "q8"]


def _at(row: Row, offset: int) -> Row:
    # The data section of `build` holds two blocks of 128 bytes; the first row's lies behind.
    return Row(row.name, row.code, (16,), row.data[:64], offset=offset)
