"""Q6_K of GGML: super-blocks of 256 elements, each of six bits, with a scale for every 16.

    0     128 bytes L, the low four bits of two elements each
    128   64 bytes H, the high two bits of four elements each
    192   16 int8 scales
    208   d, f16

Half h, group g and l < 32 name element 128h + 32g + l. Its low bits are in L[64h + 32(g % 2) + l],
in the low nibble for g < 2; its high bits in H[32h + l], from bit 2g on. A value is
d * scale * (bits - 32). Files are read in this format, never written.

Source: gguf-py's quants.py, class Q6_K, which it equals exactly.
"""

import numpy as np

from apr.quantization.floats import Floats, require_whole_blocks

BLOCK_ELEMENTS = 256
BLOCK_BYTES = 210
_BLOCK = np.dtype(
    [("low", "u1", (2, 2, 32)), ("high", "u1", (2, 32)), ("scales", "i1", 16), ("d", "<f2")]
)


def dequantize(data: bytes | memoryview) -> Floats:
    """The values of whole super-blocks. A d that is not finite gives values that are not."""
    require_whole_blocks(len(data), BLOCK_BYTES)
    blocks = np.frombuffer(data, _BLOCK)
    bits = np.empty((len(blocks), 2, 4, 32), np.uint8)
    bits[:, :, :2] = blocks["low"] & 0x0F
    bits[:, :, 2:] = blocks["low"] >> 4
    for group in range(4):
        bits[:, :, group] |= (blocks["high"] >> 2 * group & 3) << 4
    values = bits.reshape(-1, 16, 16).astype(np.float32)
    values -= 32
    with np.errstate(invalid="ignore"):
        scales = blocks["d"].astype(np.float32)[:, None] * blocks["scales"].astype(np.float32)
        values *= scales[:, :, None]
    return values.reshape(-1)
