"""Q6_K is read as gguf-py reads it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from apr.quantization import q6_k

gguf = pytest.importorskip("gguf")


def random_blocks(num_blocks: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (num_blocks, q6_k.BLOCK_BYTES), dtype=np.uint8)
    d = rng.uniform(-2, 2, (num_blocks, 1)).astype("<f2")
    blocks[:, 208:] = d.view(np.uint8)
    return blocks


def reference(blocks: NDArray[np.uint8]) -> bytes:
    return gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q6_K).tobytes()


def test_values_equal_gguf_py() -> None:
    blocks = random_blocks(1000)
    assert q6_k.dequantize(blocks.tobytes()).tobytes() == reference(blocks)


def test_one_element_by_the_formula() -> None:
    # Half 1, group 2, l = 17, so element 209: low nibble of group 2 is a high one, scale 8 + 4 + 1.
    block = np.zeros(q6_k.BLOCK_BYTES, np.uint8)
    block[64 + 17] = 0x50
    block[128 + 32 + 17] = 2 << 4
    block[192 + 13] = 3
    block[208:] = np.array([0.5], "<f2").view(np.uint8)
    values = q6_k.dequantize(block.tobytes())
    assert values[209] == 0.5 * 3 * ((5 | 2 << 4) - 32)


@pytest.mark.parametrize(
    "plant",
    [
        lambda b: np.concatenate([b[:, :128] >> 4 | b[:, :128] << 4, b[:, 128:]], axis=1),
        lambda b: np.concatenate([b[:, :128], b[:, 192:128:-1], b[:, 192:]], axis=1)[:, :210],
        lambda b: np.concatenate([b[:, :192], b[:, 207:191:-1], b[:, 208:]], axis=1),
        lambda b: np.concatenate([b[:, 208:], b[:, :208]], axis=1),
    ],
    ids=["nibbles swapped", "high bits turned", "scales turned", "d in front"],
)
def test_a_wrong_layout_is_another_tensor(plant) -> None:
    blocks = random_blocks(4)
    planted = plant(blocks)
    assert planted.shape == blocks.shape
    assert q6_k.dequantize(planted.tobytes()).tobytes() != reference(blocks)


def test_a_partial_block_is_not_taken() -> None:
    with pytest.raises(ValueError, match="multiple"):
        q6_k.dequantize(bytes(211))
