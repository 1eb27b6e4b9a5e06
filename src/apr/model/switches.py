"""How a model computes what it is: by a compiled block, in plain fp32, keeping less.

None of it touches a parameter, and what is computed differs by rounding at most.
"""

from collections.abc import Generator
from contextlib import contextmanager

import torch

from apr.model.attention import plain_recomputed
from apr.model.transformer import Attention, ComputeBlock, FeedForward, Transformer


@contextmanager
def blocks_computed_by(model: Transformer, compute: ComputeBlock) -> Generator[None]:
    """Compute every block by this function, which a compiler has made."""
    chosen, model.model.compute_block = model.model.compute_block, compute
    try:
        yield
    finally:
        model.model.compute_block = chosen


@contextmanager
def in_plain_fp32(model: Transformer, *, recomputes_blocks: bool | None = None) -> Generator[None]:
    """Compute as the model is defined, in fp32 with plain attention, whatever was chosen.

    Scores are not kept for a backward pass, so that a run whose attention keeps none has room for
    its own reference; nor is anything inside a block, where one is asked to be computed again.
    """
    chosen = model.compute_dtype, model.attention
    recomputed_before = model.model.recomputes_blocks
    model.compute_dtype, model.attention = torch.float32, plain_recomputed
    if recomputes_blocks is not None:
        model.model.recomputes_blocks = recomputes_blocks
    try:
        yield
    finally:
        model.compute_dtype, model.attention = chosen
        model.model.recomputes_blocks = recomputed_before


def join_again(model: Transformer) -> None:
    """Keep no copy of a block's weights for its backward pass, which makes them once more.

    The numbers are the same; for a model that is gathered block by block, whose copies would be
    all of it.
    """
    for module in model.model.layers.modules():
        if isinstance(module, Attention | FeedForward):
            module.joins_again = True
