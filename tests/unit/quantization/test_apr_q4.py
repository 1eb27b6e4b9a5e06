"""AprQ4: the vector of the format page, its own order of nibbles, and scales that read as 0."""

import struct

import numpy as np
import pytest
from tests.quantised_pieces import normal

from apr.quantization import apr_q4

VALUES = np.array([0, 1, -7, 3.5, *([0] * 28)], np.float32)
BYTES = bytes.fromhex("003c98c1") + b"\x88" * 14
READ = [0, 1, -7, 4, *([0] * 28)]


def test_the_vector_of_the_format_page() -> None:
    assert apr_q4.quantize(VALUES) == BYTES
    assert apr_q4.dequantize(BYTES).tolist() == READ


def test_swapped_nibbles_are_another_tensor() -> None:
    swapped = bytes((byte & 15) << 4 | byte >> 4 for byte in BYTES[2:])
    assert apr_q4.dequantize(BYTES[:2] + swapped).tolist() != READ


def test_the_order_is_not_that_of_ggml() -> None:
    gguf = pytest.importorskip("gguf")
    data = apr_q4.quantize(normal(32))
    ggml = gguf.quants.dequantize(np.frombuffer(data, np.uint8), gguf.GGMLQuantizationType.Q4_0)
    ours = apr_q4.dequantize(data)
    assert np.sort(ours).tolist() == np.sort(ggml).tolist()
    assert ours.tolist() != ggml.tolist()


def test_the_quotient_is_by_the_scale_before_it_was_a_half() -> None:
    # In units of the stored half, which is larger, 4.5 would be 4.498 and be rounded down.
    scale = np.float32(1 + 2.0**-11 + 2.0**-20)
    values = np.zeros(32, np.float32)
    values[:2] = 7 * scale, np.float32(4.5) * scale
    stored = np.float32(np.float16(scale))
    assert stored > scale
    q = apr_q4.dequantize(apr_q4.quantize(values)) / stored
    assert q[:2].tolist() == [7, 5]


def test_a_last_partial_block_is_filled_up_with_zeros() -> None:
    values = normal(40)
    data = apr_q4.quantize(values)
    assert len(data) == 2 * 18
    assert data[18 + 2 + 4 :] == b"\x88" * 12
    filled_up = np.concatenate([values, np.zeros(24, np.float32)])
    assert data == apr_q4.quantize(filled_up)
    assert apr_q4.error_bound(values).shape == (40,)


def test_zeros_have_scale_one() -> None:
    assert apr_q4.quantize(np.zeros(32, np.float32)) == b"\x00\x3c" + b"\x88" * 16


@pytest.mark.parametrize("bits", [0x7C00, 0xFC00, 0x7C01, 0xFFFF, 0x0000, 0x03FF, 0x83FF])
def test_unusable_scales_read_as_zero(bits: int) -> None:
    assert not apr_q4.dequantize(struct.pack("<H", bits) + BYTES[2:]).any()


@pytest.mark.parametrize("bits", [0x0400, 0x7BFF, 0x8400])
def test_usable_scales_are_used(bits: int) -> None:
    scale = np.array([bits], "<u2").view("<f2").astype(np.float32)
    values = apr_q4.dequantize(struct.pack("<H", bits) + BYTES[2:])
    assert values.tolist() == (np.array(READ, np.float32) * scale).tolist()


@pytest.mark.parametrize("largest", [1e-4, 1e-38, 2.0**-149, 3 * 2.0**-149])
def test_blocks_of_tiny_values_read_as_zeros_within_the_bound(largest: float) -> None:
    values = normal(32)
    values *= np.float32(largest) / np.abs(values).max()
    assert not apr_q4.dequantize(apr_q4.quantize(values)).any()
    assert (np.abs(values) <= apr_q4.error_bound(values)).all()


def test_scales_beyond_half_precision_overflow() -> None:
    values = np.zeros(32, np.float32)
    values[3] = -65504 * 7
    assert apr_q4.dequantize(apr_q4.quantize(values))[3] == values[3]
    values[3] = 65520 * 7
    with pytest.raises(OverflowError):
        apr_q4.quantize(values)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_not_taken(bad: float) -> None:
    values = normal(32)
    values[31] = bad
    with pytest.raises(ValueError, match="finite"):
        apr_q4.quantize(values)
