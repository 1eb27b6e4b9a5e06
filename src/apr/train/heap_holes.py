"""What an allocator holds and nothing uses, in factors that were measured: docs/log.md.

Large blocks that are freed within a pass are kept for the next one (`keep_freed_memory`), smaller
ones settle in them, and room for large ones is taken anew.
"""

from apr.architecture import Architecture
from apr.train.saved_activations import attention_bytes, block_bytes, layers_kept, scores_at_once
from apr.train.workload import FP32_BYTES, Precision, Workload

# What that costs over many steps, in multiples of the fp32 scores and of what the logits take.
_OF_MANY_STEPS = {"fp32": (2.4, 0.6), "bf16": (1.8, 0.5)}
_OF_ONE_PASS = (1.8, 0.5)
# Several passes a step, with gradients that stay between them, mix large and small blocks more.
_OF_ACCUMULATION = 2.0
_ELSEWHERE = 0.1
# Blocks that are computed one by one, twice, leave room of several of them; in multiples of one.
# It differs by half from run to run, with where things lie in memory; this is above the most seen.
_OF_RECOMPUTATION = 9.5
# Weights and gradients that come and go block by block, in multiples of a whole model: one
# measurement. A CUDA device's allocator has large blocks of its own for them.
_OF_GATHERING = 3.6


def holes_of_many_steps(work: Workload, precision: Precision, logits_bytes: int) -> int:
    """Bytes that are not in use after many steps of a run."""
    factors = _OF_MANY_STEPS[precision]
    if not work.on_cpu or work.compiled:
        factors = (_ELSEWHERE, _ELSEWHERE)
    elif work.grad_accum > 1:
        factors = (_OF_ACCUMULATION * factors[0], _OF_ACCUMULATION * factors[1])
    return _holes(work, precision, factors, logits_bytes)


def holes_of_one_pass(work: Workload, precision: Precision, logits_bytes: int) -> int:
    """Bytes that are not in use after a first forward and backward pass."""
    factors = _OF_ONE_PASS if work.on_cpu else (_ELSEWHERE, _ELSEWHERE)
    return _holes(work, precision, factors, logits_bytes)


def holes_of_gathering(shape: Architecture) -> int:
    """Bytes that are not in use on a CPU once a model was gathered block by block."""
    return round(_OF_GATHERING * FP32_BYTES * shape.num_parameters)


def _holes(
    work: Workload, precision: Precision, factors: tuple[float, float], logits_bytes: int
) -> int:
    of_scores, of_logits = factors
    tokens = work.micro_batch_tokens
    scores_bytes = FP32_BYTES * scores_at_once(work) * tokens
    of_blocks = of_scores * scores_bytes * layers_kept(work)
    if work.activation_checkpointing and of_scores > _ELSEWHERE:
        block = block_bytes(work.architecture, precision) + attention_bytes(work, precision)
        of_blocks = _OF_RECOMPUTATION * tokens * block
    return round(of_blocks + of_logits * logits_bytes)
