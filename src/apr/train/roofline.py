"""The roofline: how long one token of training takes at least, part by part.

Work per token follows from the shape alone, in FLOPs for matrix products and attention and in bytes
for everything else; divided by a rate it is a time. Parts do not overlap, so the times add up.

What it assumes of a run is `ASSUMES`.
"""

from dataclasses import dataclass

from apr.architecture import Architecture
from apr.train.devices import Rates

ASSUMES = (
    "bf16, compiled, attention that never writes its scores, logits in bf16 and in pieces, nothing "
    "computed twice, rows of one document, micro-batches of 16,000 tokens or more"
)
_BF16_BYTES = 2
# The gradient of attention computes its scores once more: five products for two.
_ATTENTION_BACKWARD = 2.5
# Logits are written and read, and so is their gradient, and one of the two once more.
_LOGITS_PASSES = 5
# A norm with its residual: 4 rows forward, 6 backward (its weight's gradient reads two again).
NORM_PASSES = 10
# SwiGLU: reads two rows and writes one; backward three and two.
SWIGLU_PASSES = 8
# Each direction reads and writes.
ROTARY_PASSES = 4
_CUT_AND_JOIN_PASSES = 4
# AdamW reads weight, gradient and two moments in fp32 and writes all but the gradient; a bf16 copy.
_UPDATE_BYTES = 30
# Per micro-batch: weights cast to bf16 (4 + 2), gradients added up in fp32 (4 + 4).
_MICRO_BATCH_BYTES = 14


@dataclass(frozen=True)
class Work:
    """What one token costs, forward, backward and its share of the update."""

    body_flops: float
    head_flops: float
    attention_forward_flops: float
    attention_backward_flops: float
    logits_bytes: float
    elementwise_bytes: float
    optimizer_bytes: float


def work_per_token(
    shape: Architecture, *, sequence_length: int, micro_batch_tokens: int, batch_tokens: int
) -> Work:
    """Count the work of one token, but for the embedding's lookup and the last norm (under 1 %).

    Source: 6 FLOPs per parameter of a matrix; 2 L H E T for causal attention forward.
    """
    d, f = shape.hidden_size, shape.intermediate_size
    q, kv = shape.query_width, shape.key_value_width
    head = shape.vocab_size * d
    attention = 2.0 * shape.num_hidden_layers * q * sequence_length
    elements = (
        2 * NORM_PASSES * d
        + SWIGLU_PASSES * f
        + ROTARY_PASSES * (q + kv)
        + _CUT_AND_JOIN_PASSES * (q + 2 * kv)
    )
    if shape.has_query_key_norm:
        elements += NORM_PASSES * (q + kv)
    return Work(
        body_flops=6.0 * (shape.num_matmul_parameters() - head),
        head_flops=6.0 * head,
        attention_forward_flops=attention,
        attention_backward_flops=_ATTENTION_BACKWARD * attention,
        logits_bytes=float(_LOGITS_PASSES * _BF16_BYTES * shape.vocab_size),
        elementwise_bytes=float(_BF16_BYTES * shape.num_hidden_layers * elements),
        optimizer_bytes=shape.num_parameters
        * (_UPDATE_BYTES / batch_tokens + _MICRO_BATCH_BYTES / micro_batch_tokens),
    )


def us_per_token(work: Work, rates: Rates) -> dict[str, float]:
    """Microseconds of each part, in the order of `PARTS`."""
    seconds = (
        work.body_flops / rates.body_flops_per_s,
        work.head_flops / rates.head_flops_per_s,
        work.logits_bytes / rates.copy_bytes_per_s,
        work.attention_forward_flops / rates.attention_forward_flops_per_s
        + work.attention_backward_flops / rates.attention_backward_flops_per_s,
        work.elementwise_bytes / rates.elementwise_bytes_per_s,
        work.optimizer_bytes / rates.copy_bytes_per_s,
    )
    return dict(zip(PARTS, (1e6 * each for each in seconds), strict=True))


PARTS: dict[str, tuple[str, ...]] = {
    "body matrices": ("body_flops_per_s",),
    "head matrices": ("head_flops_per_s",),
    "logits traffic": ("copy_bytes_per_s",),
    "attention": ("attention_forward_flops_per_s", "attention_backward_flops_per_s"),
    "elementwise": ("elementwise_bytes_per_s",),
    "optimizer": ("copy_bytes_per_s",),
}
"""Every part, and the rates that it goes by."""
