"""How much memory a run takes at most, counted from what the code keeps alive.

A run has few moments at which its memory peaks, and each is a sum of parts that follow from the
shape of the model and of a micro-batch: see `_moments`. The peak is the largest of these sums.
`benchmarks/memory.py` compares it with what real steps take.

The letters are those of `apr.architecture`; tokens are those of one micro-batch.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from apr.architecture import Architecture
from apr.model.attention_pieces import piece_length, pieces_of
from apr.train.head_chunks import tokens_per_chunk
from apr.train.hidden_matrices import OptimizerName, num_moments
from apr.train.units_gathered import units_of

Precision = Literal["fp32", "bf16"]

_LOGITS = "logits, their softmax and its gradient"
_HEAD = "the head in compute precision, and its gradient"
_FP32_BYTES = 4
_ITEM_BYTES = {"fp32": 4, "bf16": 2}
_MIB = 1 << 20
# Python, torch and its threads, measured; a compiler comes on top (docs/log.md).
_INTERPRETER_BYTES = 370 * _MIB
_COMPILER_BYTES = 80 * _MIB
# What a build of torch with CUDA takes more, whatever it computes on.
_CUDA_LIBRARIES_BYTES = 310 * _MIB
# A vocabulary held by the encoder and by our own tables, per entry.
_VOCABULARY_ENTRY_BYTES = 600
_DOCUMENT_BYTES = 24
# Large blocks that are freed within a pass are kept for the next one (`keep_freed_memory`), smaller
# ones settle in them, and room for large ones is taken anew. What that costs over many steps, in
# multiples of the fp32 scores and of what the logits take, is measured: docs/log.md.
_HOLES_OF_MANY_STEPS = {"fp32": (2.4, 0.6), "bf16": (1.8, 0.5)}
_HOLES_OF_ONE_PASS = (1.8, 0.5)
# Several passes a step, with gradients that stay between them, mix large and small blocks more.
_HOLES_OF_ACCUMULATION = 2.0
_HOLES_ELSEWHERE = 0.1
# Blocks that are computed one by one, twice, leave room of several of them; in multiples of one.
# It differs by half from run to run, with where things lie in memory; this is above the most seen.
_HOLES_OF_RECOMPUTATION = 9.5
# Weights and gradients that come and go block by block, in multiples of a whole model: one
# measurement, docs/log.md. A CUDA device's allocator has large blocks of its own for them.
_HOLES_OF_GATHERING = 3.6
# Scores, masked, as weights, and the gradients of these.
_COPIES_OF_SCORES = 6
# torch's product of three doubles per element, two of them copies.
_COSINE_BYTES = 24


@dataclass(frozen=True)
class Workload:
    """What decides the memory of a run."""

    architecture: Architecture
    batch_size: int
    """Sequences per optimizer update."""
    sequence_length: int
    grad_accum: int = 1
    num_shards: int = 1
    """Ranks that weights, gradients and the optimizer's moments are dealt out to."""
    optimizer: OptimizerName = "adamw"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    activation_checkpointing: bool = False
    """Whether a block keeps its input alone, and its backward pass computes the rest again."""
    compiled: bool | None = None
    """None where that is not yet decided."""
    document_mask: bool = True
    attention: str = "plain"
    """The way in which it is computed."""
    num_documents: int = 0
    on_cpu: bool = True
    """Whether model, data and interpreter share one memory."""

    @property
    def micro_batch_tokens(self) -> int:
        """Tokens of one forward pass."""
        return self.batch_size // self.grad_accum * self.sequence_length


@dataclass(frozen=True)
class MemoryEstimate:
    """The parts that are alive at the worst moment of a run, in bytes."""

    moment: str
    parts: dict[str, int]

    @property
    def peak_bytes(self) -> int:
        """Their sum."""
        return sum(self.parts.values())


def estimate_memory(work: Workload) -> MemoryEstimate:
    """The largest of all moments of a run; of both precisions where that is not yet chosen.

    A run that may turn out eager is counted as eager. One that is compiled still computes a
    micro-batch eagerly, in fp32, where the gradient gate compares the two.
    """
    if work.precision == "auto":
        both = (estimate_memory(replace(work, precision=p)) for p in ("fp32", "bf16"))
        return max(both, key=lambda estimate: estimate.peak_bytes)
    moments = [MemoryEstimate(name, parts) for name, parts in _moments(work).items()]
    return max(moments, key=lambda estimate: estimate.peak_bytes)


def largest_fitting(
    work: Workload, available_bytes: float, *, most_tokens: float = math.inf
) -> int | None:
    """The fewest micro-batches per update with which a run fits; None when none do.

    None is larger than `most_tokens`, unless a single sequence is.
    """
    divisors = _divisors(work.batch_size)
    rows = max(most_tokens / work.sequence_length, 1)
    for grad_accum in (each for each in divisors if work.batch_size / each <= rows):
        peak_bytes = estimate_memory(replace(work, grad_accum=grad_accum)).peak_bytes
        if peak_bytes < available_bytes:
            return grad_accum
    return None


def _divisors(number: int) -> list[int]:
    small = [each for each in range(1, math.isqrt(number) + 1) if number % each == 0]
    return sorted({*small, *(number // each for each in small)})


def _moments(work: Workload) -> dict[str, dict[str, int]]:
    assert work.precision != "auto"
    shape, precision = work.architecture, work.precision
    weights = _FP32_BYTES * shape.num_parameters
    embedding = shape.vocab_size * shape.hidden_size
    own = -(-weights // work.num_shards)
    standing = {"fp32 weights": own} | _around(work)
    moments = _FP32_BYTES * num_moments(shape, work.optimizer) // work.num_shards
    training = standing | {
        "gradients": own + _waiting_bytes(work),
        "optimizer moments": moments,
        # Written while the next steps run, and only in the host's memory.
        "checkpoint snapshot": weights + moments if work.on_cpu else 0,
    }
    forward, backward = _gathered(work)
    comparing = standing | {"gradients": own} | backward
    factors = _HOLES_OF_MANY_STEPS[precision]
    if not work.on_cpu or work.compiled:
        factors = (_HOLES_ELSEWHERE, _HOLES_ELSEWHERE)
    elif work.grad_accum > 1:
        factors = (_HOLES_OF_ACCUMULATION * factors[0], _HOLES_OF_ACCUMULATION * factors[1])
    loss_bytes = _loss_bytes(work, precision)[_LOGITS]
    holes = _holes(work, precision, factors, loss_bytes)
    passing = training | saved_for_backward(work, precision) | holes
    one_pass = _HOLES_OF_ONE_PASS if work.on_cpu else (_HOLES_ELSEWHERE, _HOLES_ELSEWHERE)
    # By eager kernels, whatever the run itself computes with.
    compared = replace(work, batch_size=1, grad_accum=1, compiled=False)
    if work.attention != "plain":
        compared = replace(compared, attention="recomputed")
    if work.num_shards > 1:
        compared = replace(compared, activation_checkpointing=True)
    return {
        "the loss of a micro-batch": passing | _loss_bytes(work, precision) | forward,
        "the first block of a backward pass": passing
        | backward
        | {"gradients inside a block": _block_gradient_bytes(work)},
        "the end of a backward pass": training
        | backward
        | {"gradient of the embedding": _FP32_BYTES * embedding}
        | {"gradients inside a block": _block_gradient_bytes(work)},
        "the comparison with plain fp32 before step 1": comparing
        | saved_for_backward(compared, "fp32")
        | {_LOGITS: _plain_logits_bytes(compared)}
        | {"scores of one row in one block": _row_bytes(compared)}
        | _holes(compared, "fp32", one_pass, _plain_logits_bytes(compared)),
        # What is dealt out is compared by projections, which take next to nothing.
        "two first gradients side by side": standing
        if work.num_shards > 1
        else standing
        | {"gradients": 2 * weights, "their product in fp64": _COSINE_BYTES * embedding},
    }


def _gathered(work: Workload) -> tuple[dict[str, int], dict[str, int]]:
    """Beside a rank's part of the model, what a forward and a backward pass hold of the whole."""
    if work.num_shards == 1:
        return {}, {}
    units = units_of(work.architecture)
    name, always = "weights gathered and gradients exchanged", dict[str, int]()
    if work.on_cpu and units.block_bytes:
        holes = _HOLES_OF_GATHERING * _FP32_BYTES * work.architecture.num_parameters
        always = {"holes that gathering leaves": round(holes)}
    return {name: units.forward_bytes} | always, {name: units.backward_bytes} | always


def _waiting_bytes(work: Workload) -> int:
    """Gradients of a model gathered as one wait whole for the last micro-batch of a step."""
    if work.num_shards == 1 or work.grad_accum == 1:
        return 0
    units = units_of(work.architecture)
    return 0 if units.block_bytes else units.around_bytes


def _around(work: Workload) -> dict[str, int]:
    """What is there besides the model."""
    if not work.on_cpu:
        return {}
    shape = work.architecture
    return {
        "interpreter": _interpreter_bytes() + (0 if work.compiled is False else _COMPILER_BYTES),
        "tokenizer and documents": _VOCABULARY_ENTRY_BYTES * shape.vocab_size
        + _DOCUMENT_BYTES * work.num_documents,
    }


@cache
def _interpreter_bytes() -> int:
    # Asked of the files, because nothing here loads torch.
    torch = find_spec("torch")
    folders = [] if torch is None else torch.submodule_search_locations or []
    has_cuda = any(list(Path(folder).glob("lib/*torch_cuda.*")) for folder in folders)
    return _INTERPRETER_BYTES + (_CUDA_LIBRARIES_BYTES if has_cuda else 0)


def saved_for_backward(work: Workload, precision: Precision) -> dict[str, int]:
    """What a whole forward pass keeps for the backward one."""
    shape, tokens = work.architecture, work.micro_batch_tokens
    embedding = shape.vocab_size * shape.hidden_size
    num_layers, layers = shape.num_hidden_layers, _layers_kept(work)
    # Nothing keeps the head: what comes before it is joined, which copies it even in fp32.
    joined = 1 if work.num_shards > 1 and units_of(shape).block_bytes else layers
    copied = (shape.num_matmul_parameters() - embedding) * joined // num_layers
    # On a CPU the heap keeps about as much more as a compiler saves: docs/log.md.
    is_less = work.compiled and not work.on_cpu
    block = _compiled_block_bytes if is_less else _block_bytes
    kept = layers * block(shape, precision) + _norm_bytes(shape, precision)
    if work.activation_checkpointing:
        kept += num_layers * _ITEM_BYTES[precision] * shape.hidden_size
    scores = _attention_bytes(work, precision)
    return {
        "weights joined in compute precision": _ITEM_BYTES[precision] * copied,
        "activations": tokens * kept,
        "attention scores and masks": tokens * scores,
    }


def _layers_kept(work: Workload) -> int:
    """Blocks whose activations are there at once; with checkpointing the one that is recomputed."""
    return 1 if work.activation_checkpointing else work.architecture.num_hidden_layers


def _loss_bytes(work: Workload, precision: Precision) -> dict[str, int]:
    """What the loss takes while it computes the gradients of a chunk of tokens.

    Logits, and in eager kernels their log-softmax in fp32, which lower precision has to be copied
    for. The gradients of the head and of the hidden states wait for the backward pass.
    """
    shape, item = work.architecture, _ITEM_BYTES[precision]
    chunk = tokens_per_chunk(shape.vocab_size, on_cpu=work.on_cpu)
    copies = 0 if precision == "fp32" else 1
    each = 2 * item if work.compiled else item + (1 + copies) * _FP32_BYTES
    # In fp32 the head is used as it is, and products are added where they belong.
    head = shape.vocab_size * shape.hidden_size * (_FP32_BYTES + copies * 2 * item)
    return {
        _LOGITS: each * shape.vocab_size * min(chunk, work.micro_batch_tokens),
        _HEAD: head + item * shape.hidden_size * work.micro_batch_tokens,
    }


def _plain_logits_bytes(work: Workload) -> int:
    """fp32 logits, their log-softmax, and the gradient of either: three at once."""
    return 3 * _FP32_BYTES * work.architecture.vocab_size * work.micro_batch_tokens


def _holes(
    work: Workload, precision: Precision, factors: tuple[float, float], loss_bytes: int
) -> dict[str, int]:
    """What is allocated and not in use."""
    shape, tokens = work.architecture, work.micro_batch_tokens
    scores = _FP32_BYTES * _scores_at_once(work) * tokens
    of_blocks = factors[0] * scores * _layers_kept(work)
    if work.activation_checkpointing and factors[0] > _HOLES_ELSEWHERE:
        block = _block_bytes(shape, precision) + _attention_bytes(work, precision)
        of_blocks = _HOLES_OF_RECOMPUTATION * tokens * block
    return {"holes in the heap": round(of_blocks + factors[1] * loss_bytes)}


def _compiled_block_bytes(shape: Architecture, precision: Precision) -> int:
    """The same where a compiler computes cheap things again.

    The stream in fp32 and four times in precision, queries and attention's output, keys and
    values, the joined projection of the feed-forward block and what its last one takes; up to a
    tenth more was seen (docs/log.md). A norm of heads is counted as in eager kernels.
    """
    item, d, f = _ITEM_BYTES[precision], shape.hidden_size, shape.intermediate_size
    q = shape.num_attention_heads * shape.head_dim
    kv = shape.num_key_value_heads * shape.head_dim
    seen = _FP32_BYTES * d + item * (4 * d + 2 * q + 2 * kv + 3 * f)
    return seen * 11 // 10 + _head_norm_bytes(shape, precision)


def _block_bytes(shape: Architecture, precision: Precision) -> int:
    """What autograd saves of one token in one block, attention's T by T tensors left out.

    A norm saves its input in fp32, the normed input, and its output as the input of a projection.
    The projections save queries, keys and values as attention multiplies them, and attention's
    output; the feed-forward block its joined projection, the gate's silu, and their product.
    """
    item, f = _ITEM_BYTES[precision], shape.intermediate_size
    q = shape.num_attention_heads * shape.head_dim
    kv = shape.num_key_value_heads * shape.head_dim
    return (
        2 * _norm_bytes(shape, precision)
        + item * (2 * q + 2 * kv + 4 * f)
        + _head_norm_bytes(shape, precision)
    )


def _head_norm_bytes(shape: Architecture, precision: Precision) -> int:
    """Heads before and after their norm; in fp32 a view, which keeps the values along."""
    if not shape.has_query_key_norm:
        return 0
    q = shape.num_attention_heads * shape.head_dim
    kv = shape.num_key_value_heads * shape.head_dim
    return 2 * _FP32_BYTES * (q + kv) + (_FP32_BYTES * kv if precision == "fp32" else 0)


def _norm_bytes(shape: Architecture, precision: Precision) -> int:
    return shape.hidden_size * (2 * _FP32_BYTES + _ITEM_BYTES[precision])


def _attention_bytes(work: Workload, precision: Precision) -> int:
    """What one query keeps, over all blocks, besides its vectors.

    Plain: its weights in fp32 and in compute precision, and its mask, in every block. In pieces:
    its weights in compute precision, and with every piece the keys and values before it. A kernel
    keeps the logarithm of each sum, and values as a view, which keeps the queries and keys that
    were projected with them; the mask of documents, in numbers, once, where it takes one.
    """
    shape, length = work.architecture, work.sequence_length
    layers, heads, item = _layers_kept(work), shape.num_attention_heads, _ITEM_BYTES[precision]
    kv = shape.num_key_value_heads * shape.head_dim
    if work.attention == "pieces":
        pieces = pieces_of(length)
        scores = sum(stop * (stop - start) for start, stop in pieces)
        # Keys and values of one piece are counted with the block's activations.
        joined = 2 * kv * (sum(stop for _, stop in pieces) - length)
        return layers * item * (heads * scores + joined) // length
    if work.attention == "plain":
        copies = _FP32_BYTES + (item if precision == "bf16" else 0)
        mask = length if work.document_mask else 0
        return layers * length * (heads * copies + 1) + mask
    viewed = heads * shape.head_dim + kv
    if shape.has_query_key_norm and precision == "fp32":
        # The norms keep that very view already, the values in it.
        viewed = -kv
    mask = length * item if work.document_mask and work.attention != "varlen" else 0
    return layers * (_FP32_BYTES * heads + item * viewed) + mask


def _scores_at_once(work: Workload) -> int:
    """Of one query's keys over all heads, how many are scored in one tensor."""
    length = work.sequence_length
    if work.attention == "plain":
        return work.architecture.num_attention_heads * length
    if work.attention == "pieces":
        return work.architecture.num_attention_heads * piece_length(length)
    return 0


def _row_bytes(work: Workload) -> int:
    """Plain scores of one row that are computed again, forward and backward."""
    if work.attention != "recomputed":
        return 0
    heads, length = work.architecture.num_attention_heads, work.sequence_length
    return _COPIES_OF_SCORES * _FP32_BYTES * heads * length**2


def _block_gradient_bytes(work: Workload) -> int:
    """What the backward pass of one block needs besides what was saved, in fp32 at most."""
    shape = work.architecture
    values = max(_scores_at_once(work), shape.intermediate_size)
    return 3 * _FP32_BYTES * work.micro_batch_tokens * values
