"""Tensors as values: the same ones however the bytes come in."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.source_models import tensor, tensors

from apr.container.layout import DTYPES
from apr.convert.precision import converted
from apr.convert.source import CHUNK_BYTES, SourceTensor
from apr.convert.spool import spooled
from apr.convert.weights import (
    Weights,
    chunk_bytes,
    decoded_chunks,
    equal_pieces,
    stored_bytes,
)
from apr.errors import Refusal
from apr.progress import Progress
from apr.quantization.formats import block_sizes

FORMATS = ["f32", "f16", "bf16", "q8", "q4", "q4_k", "q8_0"]


def cut(values: np.ndarray, cuts: list[int], name: str = "w") -> SourceTensor:
    """An fp32 tensor whose bytes come in pieces of whole elements, empty ones among them."""
    places = sorted(at % (values.size + 1) for at in cuts)
    parts = np.split(values.ravel(), places)
    return SourceTensor(name, "f32", values.shape, lambda: [part.data.cast("B") for part in parts])


@given(st.integers(0, 200), st.lists(st.integers(0, 500), max_size=8), st.integers(1, 64))
def test_equal_pieces_for_any_cut(num_elements: int, cuts: list[int], piece: int) -> None:
    values = np.arange(num_elements, dtype=np.float32)
    found = list(equal_pieces(cut(values, cuts), piece))
    assert all(len(each) == piece for each in found[:-1])
    assert all(0 < len(each) <= piece for each in found)
    assert np.array_equal(np.concatenate([*found, np.empty(0, np.float32)]), values)


@given(
    st.integers(1, 12),
    st.integers(1, 9),
    st.lists(st.integers(0, 200), max_size=8),
    st.lists(st.integers(0, 200), max_size=6),
)
def test_rows_for_any_cut(height: int, width: int, cuts: list[int], wanted: list[int]) -> None:
    matrix = np.arange(height * width, dtype=np.float32).reshape(height, width)
    weights = Weights({"w": cut(matrix, cuts)})
    assert np.array_equal(weights.whole("w"), matrix)
    blocks = list(weights.row_blocks("w"))
    assert np.array_equal(np.concatenate([block for _, block in blocks]), matrix)
    starts = np.cumsum([0, *(len(block) for _, block in blocks)])
    assert [start for start, _ in blocks] == starts[:-1].tolist()
    at = np.array([each % height for each in wanted], np.intp)
    assert np.array_equal(weights.rows("w", at), matrix[at])


def test_what_is_there() -> None:
    weights = Weights(tensors({"w": np.ones((2, 2), np.float32)}))
    assert "w" in weights
    assert "v" not in weights


@pytest.mark.parametrize("dtype", FORMATS)
def test_bytes_of_a_format(dtype: str) -> None:
    made = converted(tensor("w", np.ones((4, 256), np.float32)), dtype)
    assert stored_bytes(made) == sum(len(chunk) for chunk in made.chunks())
    size = chunk_bytes(dtype)
    per_block = DTYPES[dtype].block_bytes if dtype in DTYPES else block_sizes(dtype)[1]
    assert size % per_block == 0
    assert CHUNK_BYTES - per_block < size <= CHUNK_BYTES


@pytest.mark.parametrize("dtype", FORMATS)
def test_spooled_is_the_same_tensor(tmp_path: Path, dtype: str) -> None:
    """Over a chunk's border, beside others in one file, and read as often as asked."""
    random = np.random.default_rng(0)
    values = {
        "small": random.standard_normal((3, 256)).astype(np.float32),
        # An odd number of rows of blocks, more than one chunk of most formats.
        "large": random.standard_normal((257, 9 * 1024)).astype(np.float32),
    }
    made = {name: converted(each, dtype) for name, each in tensors(values).items()}
    reports: list[Progress] = []
    kept = spooled(made, tmp_path / "spool", progress=reports.append)
    assert (tmp_path / "spool").stat().st_size == sum(map(stored_bytes, made.values()))
    for name, before in made.items():
        after = kept[name]
        assert (after.name, after.dtype, after.shape) == (name, dtype, before.shape)
        expected = np.concatenate(list(decoded_chunks(before)))
        for _ in range(2):
            assert np.array_equal(np.concatenate(list(decoded_chunks(after))), expected)
    assert reports[-1].done == reports[-1].total == sum(each.size for each in values.values())


def test_a_tensor_that_cannot_be_made_ends_the_spooling(tmp_path: Path) -> None:
    bad = tensor("w", np.full((1, 256), np.nan, np.float32))
    with pytest.raises(Refusal, match=r"convert\.not-finite"):
        spooled({"w": converted(bad, "q8")}, tmp_path / "spool")


def test_a_spool_that_shrinks_is_no_short_tensor(tmp_path: Path) -> None:
    made = {"w": converted(tensor("w", np.ones((2, 256), np.float32)), "q8_0")}
    kept = spooled(made, tmp_path / "spool")
    with (tmp_path / "spool").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(Refusal, match=r"files\.shrank"):
        list(decoded_chunks(kept["w"]))


def test_a_disk_that_cannot_be_written_is_a_refusal(tmp_path: Path) -> None:
    made = {"w": tensor("w", np.ones(4, np.float32))}
    with pytest.raises(Refusal, match=r"files\.not-found"):
        spooled(made, tmp_path / "absent" / "spool")
