"""Which way of computing attention is the best that is known; a plan asks this without torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apr.train.config import TrainConfig

# On a CPU pieces are faster than torch's kernel at every length that was measured (docs/log.md);
# from this one on their scores are most of a run's memory.
_PIECES_BELOW = 4096


def preferred_way(config: "TrainConfig", *, on_cpu: bool, in_fp32: bool) -> str:
    """What was asked for; for `auto` the best that is known for such a run.

    On CUDA kernels that hold no scores take 16 bits, and documents are hidden by laying them end
    to end. On a CPU the length decides.
    """
    if config.attention != "auto":
        return config.attention
    if on_cpu:
        return "pieces" if config.seq_length < _PIECES_BELOW else "flash"
    if in_fp32:
        return "plain"
    return "varlen" if config.document_mask else "flash"
