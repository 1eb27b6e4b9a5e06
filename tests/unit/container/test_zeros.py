import struct
from pathlib import Path

import numpy as np
import pytest
from tests.container_files import Row, build

from apr.container.inspecting.zeros import ZeroCount
from apr.container.layout import TensorEntry
from apr.container.reader import Container


def count(dtype: str, data: bytes, *shape: int, piece: int | None = None) -> ZeroCount:
    zeros = ZeroCount(TensorEntry("x", dtype, shape, 0, len(data)), by_row=True)
    for at in range(0, len(data), piece or len(data) or 1):
        zeros.add(data[at : at + (piece or len(data))])
    return zeros


@pytest.mark.parametrize(
    ("dtype", "form"),
    [("f32", "<f4"), ("f16", "<f2"), ("f64", "<f8"), ("i32", "<i4"), ("i64", "<i8"), ("i8", "i1")],
)
def test_every_plain_type(dtype: str, form: str) -> None:
    zeros = count(dtype, np.array([0, 1, 0, -2, 0, 0], form).tobytes(), 3, 2)
    assert (zeros.num_values, zeros.num_zeros) == (6, 4)
    assert (zeros.num_rows, zeros.num_zero_rows) == (3, 1)


def test_bf16_and_zeros_of_either_sign() -> None:
    bits = struct.pack("<4H", 0, 0x8000, 0x3F80, 0x0001)
    zeros = count("bf16", bits, 4)
    assert (zeros.num_values, zeros.num_zeros) == (4, 2)
    assert count("f32", np.array([-0.0, np.nan], "<f4").tobytes(), 2).num_zeros == 1


@pytest.mark.parametrize("piece", [4, 8, 12, 20, 64, 1000])
def test_rows_across_pieces(piece: int) -> None:
    values = np.random.default_rng(0).standard_normal((17, 5)).astype("<f4")
    values[[0, 3, 16]] = 0
    values[5, :4] = 0
    zeros = count("f32", values.tobytes(), 17, 5, piece=piece)
    assert (zeros.num_rows, zeros.num_zero_rows, zeros.num_zeros) == (17, 3, 19)


def test_tensors_without_values() -> None:
    assert count("f32", b"", 0, 4).num_values == 0
    assert count("f32", bytes(4)).num_zeros == 1


def test_quantised_values_and_their_rows() -> None:
    zeros = count("q8", struct.pack("<f6b", 0.5, 0, 0, 0, 1, 0, 2), 2, 3)
    assert (zeros.num_values, zeros.num_zeros) == (6, 4)
    assert (zeros.num_rows, zeros.num_zero_rows) == (2, 1)
    # Three values in a block of 32: the rest of the block counts for nothing.
    block = struct.pack("<e", 1.0) + b"\x98" + b"\x88" * 15
    assert (count("q4", block, 3).num_values, count("q4", block, 3).num_zeros) == (3, 2)


def test_a_scan_shows_a_tensor_to_its_watcher(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    data = np.arange(5, dtype="<f4").tobytes()
    path.write_bytes(build({}, [Row(b"a", 0, (5,), data), Row(b"b", 0, (1,), bytes(4))]))
    seen: list[bytes] = []
    with Container.open(path) as container:
        container.scan(watchers={"a": seen.append})
    assert b"".join(seen) == data
