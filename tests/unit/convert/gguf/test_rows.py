"""The order of query and key rows, against llama.cpp's formula and against the rotation itself."""

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.gguf_models import adjacent, source_tensor, whole

from apr.convert.gguf import rows
from apr.convert.source import SourceTensor

HEAD_DIM, WIDTH = 6, 5


def weight(num_heads: int) -> NDArray[np.float32]:
    random = np.random.default_rng(num_heads)
    return random.normal(size=(num_heads * HEAD_DIM, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("num_heads", [1, 2, 7])
def test_it_is_llama_cpps_permutation(num_heads: int) -> None:
    array = weight(num_heads)
    moved = rows.to_adjacent(source_tensor("q", array), head_dim=HEAD_DIM)
    assert whole(moved) == adjacent(array, num_heads).tobytes()
    assert whole(moved) != array.tobytes()
    assert (moved.dtype, moved.shape) == ("f32", array.shape)


@pytest.mark.parametrize("num_heads", [1, 2, 7])
def test_both_directions_undo_each_other(num_heads: int) -> None:
    tensor = source_tensor("q", weight(num_heads))
    there = rows.to_adjacent(tensor, head_dim=HEAD_DIM)
    assert whole(rows.to_halves(there, head_dim=HEAD_DIM)) == whole(tensor)
    here = rows.to_halves(tensor, head_dim=HEAD_DIM)
    assert whole(rows.to_adjacent(here, head_dim=HEAD_DIM)) == whole(tensor)


def turned(
    head: NDArray[np.float64], angles: NDArray[np.float64], pairs: list[tuple[int, int]]
) -> NDArray[np.float64]:
    result = head.copy()
    for angle, (i, j) in zip(angles, pairs, strict=True):
        result[i] = head[i] * np.cos(angle) - head[j] * np.sin(angle)
        result[j] = head[i] * np.sin(angle) + head[j] * np.cos(angle)
    return result


def score(q: NDArray[np.float32], k: NDArray[np.float32], pairs: list[tuple[int, int]]) -> float:
    """What attention sees of one query at position 5 and one key at position 2."""
    x, y = np.random.default_rng(1).normal(size=(2, WIDTH))
    frequencies = 100.0 ** -(np.arange(HEAD_DIM // 2) / (HEAD_DIM // 2))
    return float(turned(q @ x, 5 * frequencies, pairs) @ turned(k @ y, 2 * frequencies, pairs))


def test_each_order_computes_the_same_with_its_own_pairs_and_not_with_the_other() -> None:
    random = np.random.default_rng(2)
    q, k = random.normal(size=(2, HEAD_DIM, WIDTH)).astype(np.float32)
    moved = [
        np.frombuffer(
            whole(rows.to_adjacent(source_tensor("w", w), head_dim=HEAD_DIM)), dtype=np.float32
        ).reshape(w.shape)
        for w in (q, k)
    ]
    halves = [(i, i + HEAD_DIM // 2) for i in range(HEAD_DIM // 2)]
    neighbours = [(2 * i, 2 * i + 1) for i in range(HEAD_DIM // 2)]
    assert score(*moved, neighbours) == pytest.approx(score(q, k, halves))
    assert score(q, k, neighbours) != pytest.approx(score(q, k, halves), rel=1e-3)


@pytest.mark.parametrize(("dtype", "block_bytes"), [("q8_0", 34), ("q4_k", 144), ("q6_k", 210)])
def test_rows_of_blocks_move_whole(dtype: str, block_bytes: int) -> None:
    elements = {"q8_0": 32, "q4_k": 256, "q6_k": 256}[dtype]
    random = np.random.default_rng(3)
    stored = random.integers(0, 256, size=(4 * HEAD_DIM, 2 * block_bytes), dtype=np.uint8)
    data = stored.tobytes()
    pieces = [memoryview(data)[at : at + block_bytes] for at in range(0, len(data), block_bytes)]
    tensor = SourceTensor("q", dtype, (4 * HEAD_DIM, 2 * elements), lambda: pieces)
    assert whole(rows.to_adjacent(tensor, head_dim=HEAD_DIM)) == adjacent(stored, 4).tobytes()


def test_memory_is_bounded_by_pieces_and_not_by_the_tensor() -> None:
    head_dim, width = 128, 4096  # one head of 2 MiB, 40 MiB of them
    piece = memoryview(bytes(head_dim * width * 4))
    tensor = SourceTensor("q", "f32", (20 * head_dim, width), lambda: iter([piece] * 20))
    sizes = [len(chunk) for chunk in rows.to_halves(tensor, head_dim=head_dim).chunks()]
    assert sum(sizes) == 20 * len(piece)
    assert max(sizes) <= 8 << 20


def test_only_queries_and_keys_are_turned() -> None:
    assert rows.is_turned("model.layers.3.self_attn.q_proj.weight")
    assert rows.is_turned("model.layers.3.self_attn.k_proj.weight")
    for name in ("self_attn.v_proj.weight", "self_attn.o_proj.weight", "self_attn.q_norm.weight"):
        assert not rows.is_turned(f"model.layers.3.{name}")
