"""One transformer block taken apart: the same operations in the same order, each with its name."""

from collections.abc import Iterator

from torch import Tensor

from apr.model.attention import Attend
from apr.model.transformer import Block, project


def operations(
    block: Block, x_BTD: Tensor, attend: Attend, rotary: tuple[Tensor, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """What a block computes, step by step; the last is the residual stream after it.

    Names are those of `convert.reference.Reference.layer`.
    """
    attention = block.self_attn
    normed = block.input_layernorm(x_BTD)
    yield "input norm", normed
    q, k, v = attention.heads(normed)
    yield "queries", q
    yield "keys", k
    yield "values", v
    q, k = attention.turn(q, rotary), attention.turn(k, rotary)
    yield "queries after rotary", q
    yield "keys after rotary", k
    mixed = attention.mix(q, k, v, attend)
    yield "attention", mixed
    projected = attention.output(mixed)
    yield "attention output", projected
    x_BTD = x_BTD + projected
    normed = block.post_attention_layernorm(x_BTD)
    yield "norm after attention", normed
    hidden = block.mlp.inside(normed)
    yield "feed-forward inside", hidden
    down = project(hidden, block.mlp.down_proj)[0]
    yield "feed-forward", down
    yield "residual stream", x_BTD + down
