"""What a forward pass keeps for the backward one, counted from what autograd saves.

The letters are those of `apr.architecture`; tokens are those of one micro-batch.
"""

from apr.architecture import Architecture
from apr.model.attention_pieces import piece_length, pieces_of
from apr.train.units_gathered import units_of
from apr.train.workload import FP32_BYTES, ITEM_BYTES, Precision, Workload


def saved_for_backward(work: Workload, precision: Precision) -> dict[str, int]:
    """What a whole forward pass keeps for the backward one."""
    shape, tokens = work.architecture, work.micro_batch_tokens
    embedding = shape.vocab_size * shape.hidden_size
    num_layers, layers = shape.num_hidden_layers, layers_kept(work)
    # Nothing keeps the head: what comes before it is joined, which copies it even in fp32.
    joined = 1 if work.num_shards > 1 and units_of(shape).block_bytes else layers
    copied = (shape.num_matmul_parameters() - embedding) * joined // num_layers
    # On a CPU the heap keeps about as much more as a compiler saves: docs/log.md.
    is_less = work.compiled and not work.on_cpu
    block = _compiled_block_bytes if is_less else block_bytes
    kept = layers * block(shape, precision) + _norm_bytes(shape, precision)
    if work.activation_checkpointing:
        kept += num_layers * ITEM_BYTES[precision] * shape.hidden_size
    scores = attention_bytes(work, precision)
    return {
        "weights joined in compute precision": ITEM_BYTES[precision] * copied,
        "activations": tokens * kept,
        "attention scores and masks": tokens * scores,
    }


def layers_kept(work: Workload) -> int:
    """Blocks whose activations are there at once; with checkpointing the one that is recomputed."""
    return 1 if work.activation_checkpointing else work.architecture.num_hidden_layers


def block_bytes(shape: Architecture, precision: Precision) -> int:
    """What autograd saves of one token in one block, attention's T by T tensors left out.

    A norm saves its input in fp32, the normed input, and its output as the input of a projection.
    The projections save queries, keys and values as attention multiplies them, and attention's
    output; the feed-forward block its joined projection, the gate's silu, and their product.
    """
    item, f = ITEM_BYTES[precision], shape.intermediate_size
    q, kv = shape.query_width, shape.key_value_width
    return (
        2 * _norm_bytes(shape, precision)
        + item * (2 * q + 2 * kv + 4 * f)
        + _head_norm_bytes(shape, precision)
    )


def _compiled_block_bytes(shape: Architecture, precision: Precision) -> int:
    """The same where a compiler computes cheap things again.

    The stream in fp32 and four times in precision, queries and attention's output, keys and
    values, the joined projection of the feed-forward block and what its last one takes; up to a
    tenth more was seen (docs/log.md). A norm of heads is counted as in eager kernels.
    """
    item, d, f = ITEM_BYTES[precision], shape.hidden_size, shape.intermediate_size
    q, kv = shape.query_width, shape.key_value_width
    seen = FP32_BYTES * d + item * (4 * d + 2 * q + 2 * kv + 3 * f)
    return seen * 11 // 10 + _head_norm_bytes(shape, precision)


def _head_norm_bytes(shape: Architecture, precision: Precision) -> int:
    """Heads before and after their norm; in fp32 a view, which keeps the values along."""
    if not shape.has_query_key_norm:
        return 0
    q, kv = shape.query_width, shape.key_value_width
    return 2 * FP32_BYTES * (q + kv) + (FP32_BYTES * kv if precision == "fp32" else 0)


def _norm_bytes(shape: Architecture, precision: Precision) -> int:
    return shape.hidden_size * (2 * FP32_BYTES + ITEM_BYTES[precision])


def attention_bytes(work: Workload, precision: Precision) -> int:
    """What one query keeps, over all blocks, besides its vectors.

    Plain: its weights in fp32 and in compute precision, and its mask, in every block. In pieces:
    its weights in compute precision, and with every piece the keys and values before it. A kernel
    keeps the logarithm of each sum, and values as a view, which keeps the queries and keys that
    were projected with them; the mask of documents, in numbers, once, where it takes one.
    """
    shape, length = work.architecture, work.sequence_length
    layers, heads, item = layers_kept(work), shape.num_attention_heads, ITEM_BYTES[precision]
    q, kv = shape.query_width, shape.key_value_width
    if work.attention == "pieces":
        pieces = pieces_of(length)
        scores = sum(stop * (stop - start) for start, stop in pieces)
        # Keys and values of one piece are counted with the block's activations.
        joined = 2 * kv * (sum(stop for _, stop in pieces) - length)
        return layers * item * (heads * scores + joined) // length
    if work.attention == "plain":
        copies = FP32_BYTES + (item if precision == "bf16" else 0)
        mask = length if work.document_mask else 0
        return layers * length * (heads * copies + 1) + mask
    viewed = q + kv
    if shape.has_query_key_norm and precision == "fp32":
        # The norms keep that very view already, the values in it.
        viewed = -kv
    mask = length * item if work.document_mask and work.attention != "varlen" else 0
    return layers * (FP32_BYTES * heads + item * viewed) + mask


def scores_at_once(work: Workload) -> int:
    """Of one query's keys over all heads, how many are scored in one tensor."""
    length = work.sequence_length
    if work.attention == "plain":
        return work.architecture.num_attention_heads * length
    if work.attention == "pieces":
        return work.architecture.num_attention_heads * piece_length(length)
    return 0
