"""Q8_0 equals gguf-py, byte for byte."""

import numpy as np
import pytest
from hypothesis import given
from tests.quantised_pieces import Floats, normal, pieces

from apr.quantization import q8_0

gguf = pytest.importorskip("gguf")
Q8_0 = gguf.GGMLQuantizationType.Q8_0


def reference(values: Floats) -> bytes:
    return gguf.quants.quantize(values, Q8_0).tobytes()


def reference_values(data: bytes) -> Floats:
    return gguf.quants.dequantize(np.frombuffer(data, np.uint8), Q8_0)


def test_a_block_by_hand() -> None:
    values = np.zeros(32, np.float32)
    values[:4] = 127, -64, 0.5, -2.5
    assert q8_0.quantize(values) == b"\x00\x3c" + bytes([127, 192, 1, 253]) + bytes(28)


@pytest.mark.parametrize("deviation", [1, 0.02, 1e-6, 1e4])
def test_bytes_equal_gguf_py(deviation: float) -> None:
    values = normal(32 * 4096, deviation=deviation)
    data = q8_0.quantize(values)
    assert data == reference(values)
    assert q8_0.dequantize(data).tobytes() == reference_values(data).tobytes()


def test_ties_are_those_of_the_reciprocal() -> None:
    largest = np.random.default_rng(0).uniform(1, 2, (1000, 1)).astype(np.float32)
    d = largest / np.float32(127)
    values = np.hstack([largest, d * (np.arange(31, dtype=np.float32) + np.float32(0.5))])
    divided = np.trunc(values / d + np.float32(0.5)).astype(np.int8)
    data = q8_0.quantize(values.reshape(-1))
    assert data == reference(values.reshape(-1))
    stored = np.frombuffer(data, np.int8).reshape(-1, 34)[:, 2:]
    assert (stored != divided).any(), "no value here could tell the two apart"


@given(pieces(4, largest_exponent=20))
def test_bytes_equal_gguf_py_whatever_the_values(values: Floats) -> None:
    blocks = values.reshape(-1, 32)
    largest = np.abs(blocks).max(axis=1)
    # Below, the reciprocal of a scale is infinite, and the reference's bytes are undefined.
    blocks[(largest > 0) & (largest < 2.0**-100)] = 1
    assert q8_0.quantize(values) == reference(values)


@pytest.mark.parametrize(
    "plant",
    [
        lambda blocks: blocks[:, [1, 0, *range(2, 34)]],  # the scale's bytes
        lambda blocks: blocks[:, [*range(32, 34), *range(32)]],  # the scale at the end
        lambda blocks: blocks[::-1],  # the order of blocks
    ],
)
def test_a_wrong_layout_is_another_tensor(plant) -> None:
    values = normal(32 * 16)
    data = q8_0.quantize(values)
    planted = plant(np.frombuffer(data, np.uint8).reshape(-1, 34)).tobytes()
    assert planted != reference(values)
    assert q8_0.dequantize(planted).tobytes() != reference_values(data).tobytes()


def test_the_smallest_values_become_zeros() -> None:
    values = normal(32, deviation=1e-44)
    assert values.any()
    assert q8_0.quantize(values)[:2] == bytes(2)
    assert not q8_0.dequantize(q8_0.quantize(values)).any()


def test_scales_beyond_half_precision_overflow() -> None:
    values = np.zeros(32, np.float32)
    values[0] = 65504 * 127
    assert q8_0.dequantize(q8_0.quantize(values))[0] == values[0]
    values[0] = 65520 * 127
    with pytest.raises(OverflowError):
        q8_0.quantize(values)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_not_taken(bad: float) -> None:
    values = normal(64)
    values[40] = bad
    with pytest.raises(ValueError, match="finite"):
        q8_0.quantize(values)


def test_a_partial_block_is_not_taken() -> None:
    with pytest.raises(ValueError, match="multiple"):
        q8_0.quantize(normal(33))
    with pytest.raises(ValueError, match="multiple"):
        q8_0.dequantize(bytes(35))
