"""AprQ8: the vector of the format page, the ends of float32, and pieces."""

import struct

import numpy as np
import pytest
from tests.quantised_pieces import normal

from apr.quantization import apr_q8
from apr.quantization.formats import dequantize

VALUES = np.array([127, -64, 0.4, 0.6], np.float32)
BYTES = bytes.fromhex("0000803f7fc00001")


def quantized(values: np.ndarray) -> bytes:
    scale = apr_q8.scale_of(float(np.abs(values).max()))
    return apr_q8.encode_prefix(scale) + apr_q8.quantize(values, scale)


def test_the_vector_of_the_format_page() -> None:
    assert quantized(VALUES) == BYTES
    assert dequantize("q8", BYTES, 4).tolist() == [127, -64, 0, 1]


def test_another_scale_is_another_tensor() -> None:
    planted = struct.pack("<f", 0.5) + BYTES[4:]
    assert dequantize("q8", planted, 4).tolist() != [127, -64, 0, 1]


def test_halves_are_rounded_away_from_zero() -> None:
    values = np.array([127, 0.5, -0.5, 1.5, 2.5, -2.5], np.float32)
    assert dequantize("q8", quantized(values), 6).tolist() == [127, 1, -1, 2, 3, -3]


def test_zeros_have_scale_one() -> None:
    assert quantized(np.zeros(3, np.float32)) == struct.pack("<f", 1) + bytes(3)


def test_the_scale_is_rounded_in_float32() -> None:
    assert apr_q8.scale_of(0.3) == float(np.float32(0.3) / np.float32(127))


def test_the_smallest_values_are_kept() -> None:
    values = np.array([63, -1, 0], np.float32) * np.float32(2.0**-149)
    assert dequantize("q8", quantized(values), 3).tolist() == values.tolist()


def test_the_largest_floats_do_not_come_back_infinite() -> None:
    largest = float(np.finfo(np.float32).max)
    for value in (largest, float(np.nextafter(np.float32(largest), np.float32(0)))):
        try:
            data = quantized(np.array([value, 1], np.float32))
        except OverflowError:
            continue
        assert np.isfinite(dequantize("q8", data, 2)).all()


def test_pieces_give_the_bytes_of_the_whole() -> None:
    values = normal(1000)
    scale = apr_q8.scale_of(float(np.abs(values).max()))
    in_pieces = b"".join(
        apr_q8.quantize(values[at : at + 333], scale) for at in range(0, 1000, 333)
    )
    assert in_pieces == apr_q8.quantize(values, scale)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_not_taken(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        apr_q8.scale_of(bad)
    with pytest.raises(ValueError, match="finite"):
        apr_q8.quantize(np.array([bad], np.float32), 1.0)


def test_a_scale_that_is_not_finite_is_read_as_it_is() -> None:
    data = struct.pack("<f", np.inf) + b"\x00\x01"
    values = dequantize("q8", data, 2)
    assert np.isnan(values[0])
    assert np.isinf(values[1])
