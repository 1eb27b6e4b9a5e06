"""Which way of computing attention is the best that is known; a plan asks this without torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apr.train.config import TrainConfig

# On a CPU, measured (docs/log.md): in fp32 the kernel is faster from the first of these on; in bf16
# plain attention stays a tenth faster, but from the second its scores are most of a run's memory.
_PLAIN_BELOW_IN_FP32, _PLAIN_BELOW_IN_BF16 = 1024, 2048


def preferred_way(config: "TrainConfig", *, on_cpu: bool, in_fp32: bool) -> str:
    """What was asked for; for `auto` the best that is known for such a run.

    On CUDA kernels that hold no scores take 16 bits, and documents are hidden by laying them end
    to end. On a CPU the length decides.
    """
    if config.attention != "auto":
        return config.attention
    if on_cpu:
        plain_below = _PLAIN_BELOW_IN_FP32 if in_fp32 else _PLAIN_BELOW_IN_BF16
        return "plain" if config.seq_length < plain_below else "flash"
    if in_fp32:
        return "plain"
    return "varlen" if config.document_mask else "flash"
