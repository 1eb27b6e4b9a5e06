"""Formats by name: sizes as the container has them, pieces, and bounds that hold and bite."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.quantised_pieces import Floats, any_values, normal, pieces

from apr.container.layout import DTYPES
from apr.quantization.formats import (
    READABLE,
    WRITABLE,
    block_sizes,
    dequantize,
    dequantizer,
    prefix_bytes,
    quantizer,
)


def quantized(name: str, values: Floats) -> bytes:
    tensor = quantizer(name, max_abs=float(np.abs(values).max()))
    return tensor.prefix + tensor.quantize(values)


def bounds(name: str, values: Floats) -> Floats:
    return quantizer(name, max_abs=float(np.abs(values).max())).error_bound(values)


@pytest.mark.parametrize("name", [name for name in READABLE if name in DTYPES])
def test_sizes_are_those_of_the_container(name: str) -> None:
    dtype = DTYPES[name]
    assert block_sizes(name) == (dtype.block_elements, dtype.block_bytes)
    assert prefix_bytes(name) == dtype.prefix_bytes


def test_only_ggufs_own_format_is_unknown_to_the_container() -> None:
    assert set(READABLE) - set(DTYPES) == {"q8_0"}
    assert set(READABLE) >= set(WRITABLE)


@pytest.mark.parametrize("name", WRITABLE)
def test_pieces_give_the_bytes_and_values_of_the_whole(name: str) -> None:
    values = normal(256 * 10)
    whole = quantized(name, values)
    tensor = quantizer(name, max_abs=float(np.abs(values).max()))
    assert 256 % tensor.block_elements == 0
    parts = [tensor.quantize(values[at : at + 768]) for at in range(0, values.size, 768)]
    assert tensor.prefix + b"".join(parts) == whole

    read = dequantizer(name, whole[: prefix_bytes(name)])
    in_parts = np.concatenate([read(memoryview(part)) for part in parts])
    assert in_parts.dtype == np.float32
    assert in_parts.tobytes() == dequantize(name, memoryview(whole), values.size).tobytes()


@pytest.mark.parametrize("name", WRITABLE)
def test_values_come_back_about_the_same(name: str) -> None:
    values = normal(256 * 64)
    difference = dequantize(name, quantized(name, values), values.size) - values
    assert 0 < np.sqrt(np.mean(difference**2)) < 0.11


# The largest exponents whose scales are halves in all formats.
@pytest.mark.parametrize("name", WRITABLE)
@settings(max_examples=200)
@given(
    values=pieces(16, largest_exponent=16)
    | pieces(16, largest_exponent=-10)
    | st.lists(any_values(1, 2.0**17), min_size=1, max_size=64).map(
        lambda few: np.resize(np.concatenate(few), 512)
    )
)
def test_bounds_hold(name: str, values: Floats) -> None:
    read = dequantize(name, quantized(name, values), values.size)
    limit = bounds(name, values)
    assert limit.dtype == np.float32
    assert limit.shape == values.shape
    assert (np.abs(read - values) <= limit).all()


@pytest.mark.parametrize("name", WRITABLE)
@given(seed=st.integers(0, 2**32 - 1), deviation=st.sampled_from([0.01, 1.0, 50.0]))
def test_swapped_blocks_are_beyond_the_bounds(name: str, seed: int, deviation: float) -> None:
    values = normal(512, seed=seed, deviation=deviation)
    swapped = np.concatenate([values[256:], values[:256]])
    read = dequantize(name, quantized(name, swapped), values.size)
    is_beyond = np.abs(read - values) > bounds(name, values)
    assert is_beyond.mean() > 0.3


@pytest.mark.parametrize("name", WRITABLE)
def test_bounds_are_no_looser_than_steps(name: str) -> None:
    values = normal(256 * 16)
    bits = {"q8": 8, "q8_0": 8, "q4": 4, "q4_k": 4}[name]
    step = (values.max() - values.min()) / (2**bits - 1)
    assert bounds(name, values).max() < 2 * step
    assert np.median(bounds(name, values)) < 0.8 * step


@pytest.mark.parametrize("name", READABLE)
def test_a_wrong_number_of_elements_is_not_taken(name: str) -> None:
    block_elements, block_bytes = block_sizes(name)
    data = bytes(prefix_bytes(name) + 2 * block_bytes)
    assert dequantize(name, data, 2 * block_elements).size == 2 * block_elements
    for wrong in (2 * block_elements + 1, block_elements):
        with pytest.raises(ValueError, match="were expected"):
            dequantize(name, data, wrong)


@pytest.mark.parametrize("name", READABLE)
def test_an_empty_tensor_has_no_bytes(name: str) -> None:
    assert dequantize(name, b"", 0).shape == (0,)


@pytest.mark.parametrize("name", ["q5_k", "f32", ""])
def test_unknown_names_are_not_taken(name: str) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        dequantize(name, b"", 1)
    with pytest.raises(ValueError, match="no quantiser"):
        quantizer(name, max_abs=1.0)


def test_q6_k_is_read_only() -> None:
    with pytest.raises(ValueError, match="no quantiser"):
        quantizer("q6_k", max_abs=1.0)
