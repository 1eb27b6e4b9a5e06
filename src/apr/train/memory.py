"""How much memory a run takes at most, counted from what the code keeps alive.

A run has few moments at which its memory peaks, and each is a sum of parts that follow from the
shape of the model and of a micro-batch: see `_moments`. The peak is the largest of these sums.
`benchmarks/memory.py` compares it with what real steps take.

The letters are those of `apr.architecture`; tokens are those of one micro-batch.
"""

import math
from dataclasses import dataclass, replace

from apr.train.head_chunks import tokens_per_chunk
from apr.train.heap_holes import holes_of_gathering, holes_of_many_steps, holes_of_one_pass
from apr.train.hidden_matrices import num_moments
from apr.train.host_memory import around_the_model
from apr.train.saved_activations import saved_for_backward, scores_at_once
from apr.train.units_gathered import units_of
from apr.train.workload import FP32_BYTES, ITEM_BYTES, Precision, Workload

_LOGITS = "logits, their softmax and its gradient"
_HEAD = "the head in compute precision, and its gradient"
_HOLES = "holes in the heap"
# Scores, masked, as weights, and the gradients of these.
_COPIES_OF_SCORES = 6
# torch's product of three doubles per element, two of them copies.
_COSINE_BYTES = 24


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
    weights = FP32_BYTES * shape.num_parameters
    embedding = shape.vocab_size * shape.hidden_size
    own = -(-weights // work.num_shards)
    standing = {"fp32 weights": own} | around_the_model(work)
    moments = FP32_BYTES * num_moments(shape, work.optimizer) // work.num_shards
    training = standing | {
        "gradients": own + _waiting_bytes(work),
        "optimizer moments": moments,
        # Written while the next steps run, and only in the host's memory.
        "checkpoint snapshot": weights + moments if work.on_cpu else 0,
    }
    forward, backward = _gathered(work)
    comparing = standing | {"gradients": own} | backward
    holes = holes_of_many_steps(work, precision, _loss_bytes(work, precision)[_LOGITS])
    passing = training | saved_for_backward(work, precision) | {_HOLES: holes}
    compared = _compared(work)
    return {
        "the loss of a micro-batch": passing | _loss_bytes(work, precision) | forward,
        "the first block of a backward pass": passing
        | backward
        | {"gradients inside a block": _block_gradient_bytes(work)},
        "the end of a backward pass": training
        | backward
        | {"gradient of the embedding": FP32_BYTES * embedding}
        | {"gradients inside a block": _block_gradient_bytes(work)},
        "the comparison with plain fp32 before step 1": comparing
        | saved_for_backward(compared, "fp32")
        | {_LOGITS: _plain_logits_bytes(compared)}
        | {"scores of one row in one block": _row_bytes(compared)}
        | {_HOLES: holes_of_one_pass(compared, "fp32", _plain_logits_bytes(compared))},
        # What is dealt out is compared by projections, which take next to nothing.
        "two first gradients side by side": standing
        if work.num_shards > 1
        else standing
        | {"gradients": 2 * weights, "their product in fp64": _COSINE_BYTES * embedding},
    }


def _compared(work: Workload) -> Workload:
    """One row by eager kernels, as plain as it is compared, whatever the run computes with."""
    compared = replace(work, batch_size=1, grad_accum=1, compiled=False)
    if work.attention != "plain":
        compared = replace(compared, attention="recomputed")
    if work.num_shards > 1:
        compared = replace(compared, activation_checkpointing=True)
    return compared


def _gathered(work: Workload) -> tuple[dict[str, int], dict[str, int]]:
    """Beside a rank's part of the model, what a forward and a backward pass hold of the whole."""
    if work.num_shards == 1:
        return {}, {}
    units = units_of(work.architecture)
    name, always = "weights gathered and gradients exchanged", dict[str, int]()
    if work.on_cpu and units.block_bytes:
        always = {"holes that gathering leaves": holes_of_gathering(work.architecture)}
    return {name: units.forward_bytes} | always, {name: units.backward_bytes} | always


def _waiting_bytes(work: Workload) -> int:
    """Gradients of a model gathered as one wait whole for the last micro-batch of a step."""
    if work.num_shards == 1 or work.grad_accum == 1:
        return 0
    units = units_of(work.architecture)
    return 0 if units.block_bytes else units.around_bytes


def _loss_bytes(work: Workload, precision: Precision) -> dict[str, int]:
    """What the loss takes while it computes the gradients of a chunk of tokens.

    Logits, and in eager kernels their log-softmax in fp32, which lower precision has to be copied
    for. The gradients of the head and of the hidden states wait for the backward pass.
    """
    shape, item = work.architecture, ITEM_BYTES[precision]
    chunk = tokens_per_chunk(shape.vocab_size, on_cpu=work.on_cpu)
    copies = 0 if precision == "fp32" else 1
    each = 2 * item if work.compiled else item + (1 + copies) * FP32_BYTES
    # In fp32 the head is used as it is, and products are added where they belong.
    head = shape.vocab_size * shape.hidden_size * (FP32_BYTES + copies * 2 * item)
    return {
        _LOGITS: each * shape.vocab_size * min(chunk, work.micro_batch_tokens),
        _HEAD: head + item * shape.hidden_size * work.micro_batch_tokens,
    }


def _plain_logits_bytes(work: Workload) -> int:
    """fp32 logits, their log-softmax, and the gradient of either: three at once."""
    return 3 * FP32_BYTES * work.architecture.vocab_size * work.micro_batch_tokens


def _row_bytes(work: Workload) -> int:
    """Plain scores of one row that are computed again, forward and backward."""
    if work.attention != "recomputed":
        return 0
    heads, length = work.architecture.num_attention_heads, work.sequence_length
    return _COPIES_OF_SCORES * FP32_BYTES * heads * length**2


def _block_gradient_bytes(work: Workload) -> int:
    """What the backward pass of one block needs besides what was saved, in fp32 at most."""
    shape = work.architecture
    values = max(scores_at_once(work), shape.intermediate_size)
    return 3 * FP32_BYTES * work.micro_batch_tokens * values
