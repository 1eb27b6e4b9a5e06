"""NaN and infinity are found in every floating type, and nothing else is taken for them."""

import struct
from pathlib import Path

import numpy as np
import pytest
from tests.container_files import Row, build

from apr.container.inspecting.validation import validate
from apr.container.values import count_non_finite

FLOATS = {"f32": "<f4", "f16": "<f2", "f64": "<f8"}
CODES = {"f32": 0, "f16": 1, "f64": 3, "i32": 4, "bf16": 30, "q4_k": 12, "q6_k": 14, "q4": 128}
BAD_F16 = (b"\x00\x7c", b"\x00\xfc", b"\x01\x7c", b"\xff\xff")


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_agree_with_numpy(dtype: str) -> None:
    form = np.dtype(FLOATS[dtype])
    bits = np.random.default_rng(0).integers(0, 256, 8192 * form.itemsize, dtype=np.uint8)
    values = bits.view(form)
    expected = np.count_nonzero(~np.isfinite(values))
    assert expected > 0
    assert count_non_finite(dtype, values.tobytes(), is_first=True) == expected


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_largest_finite_values_are_finite(dtype: str) -> None:
    limits = np.finfo(FLOATS[dtype])
    values = np.array([limits.max, limits.min, limits.tiny, 0.0, -0.0], FLOATS[dtype])
    assert count_non_finite(dtype, values.tobytes(), is_first=True) == 0


def test_bf16_agrees_with_the_upper_half_of_f32() -> None:
    upper = np.arange(1 << 16, dtype="<u2")
    widened = (upper.astype("<u4") << 16).view("<f4")
    expected = np.count_nonzero(~np.isfinite(widened))
    assert count_non_finite("bf16", upper.tobytes(), is_first=True) == expected == 256


@pytest.mark.parametrize(
    ("dtype", "block_bytes", "scales_at"),
    [("q4", 18, (0,)), ("q4_k", 144, (0, 2)), ("q6_k", 210, (208,))],
)
def test_scales_of_quantised_blocks(
    dtype: str, block_bytes: int, scales_at: tuple[int, ...]
) -> None:
    for bad in BAD_F16:
        for at in range(0, block_bytes - 1, 2):
            block = bytearray(3 * block_bytes)
            block[block_bytes + at : block_bytes + at + 2] = bad
            count = count_non_finite(dtype, bytes(block), is_first=False)
            assert count == (1 if at in scales_at else 0), at


def test_the_scale_of_a_q8_tensor() -> None:
    quants = b"\xff" * 8
    assert count_non_finite("q8", struct.pack("<f", 0.5) + quants, is_first=True) == 0
    assert count_non_finite("q8", struct.pack("<f", np.nan) + quants, is_first=True) == 1
    # A later chunk of the same tensor holds no scale.
    assert count_non_finite("q8", quants, is_first=False) == 0


def test_integers_are_always_finite() -> None:
    for dtype in ("i8", "u8", "i32", "i64"):
        assert count_non_finite(dtype, b"\xff" * 64, is_first=True) == 0


@pytest.mark.parametrize(
    ("dtype", "shape", "size_bytes", "at"),
    [
        ("f32", (4,), 16, 12),
        ("f16", (4,), 8, 2),
        ("bf16", (4,), 8, 6),
        ("f64", (2,), 16, 8),
        ("q4", (64,), 36, 18),
        ("q4_k", (256,), 144, 0),
        ("q6_k", (256,), 210, 208),
    ],
)
def test_validate_names_the_tensor(
    tmp_path: Path, dtype: str, shape: tuple[int, ...], size_bytes: int, at: int
) -> None:
    path = tmp_path / "x.apr"
    for planted in (False, True):
        data = bytearray(size_bytes)
        if planted:
            data[at : at + 8] = b"\xff" * min(8, size_bytes - at)
        path.write_bytes(build({}, [Row(b"t", CODES[dtype], shape, bytes(data))]))
        check = next(c for c in validate(path).checks if c.id == "container.values-finite")
        assert check.verdict == ("FAIL" if planted else "PASS")
        assert not planted or "'t'" in check.found


def test_comparing_nothing_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    for rows in ([], [Row(b"t", 0, (0,), b"")]):
        path.write_bytes(build({}, rows))
        validation = validate(path)
        assert validation.verdict == "UNKNOWN"
        unknown = [check.id for check in validation.checks if check.verdict == "UNKNOWN"]
        assert unknown == ["container.values-finite"]
