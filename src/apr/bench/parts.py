"""Where the time of a step goes: every operation of a profile in the part that it shows.

What belongs to no part is `other`, Python and the pauses between kernels among it, so the parts
sum to the step by construction; what can go wrong is that they sum to more, and that is checked.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from apr.architecture import Architecture

PART_NAMES: tuple[str, ...] = (
    "attention",
    "matmuls",
    "head",
    "elementwise",
    "optimizer",
    "data wait",
    "other",
)
# Kernels of several streams overlap, and the clocks of device and host differ a little.
TOLERANCE = 0.02
_PRODUCTS = ("aten::mm", "aten::addmm", "aten::_addmm_activation")
_PRODUCT_WORDS = ("gemm", "nvjet", "cutlass", "xmma", "mkldnn", "fused_mm", "fused_addmm")
# The model's only batched products are those of plain attention.
_BATCHED_PRODUCTS = ("aten::bmm", "aten::baddbmm")
_ATTENTION_WORDS = ("attention", "flash", "fmha", "sdpa", "varlen_attn")
_HEAD_WORDS = ("log_softmax", "logsumexp", "nll_loss", "cross_entropy")
_EMBEDDING_WORDS = ("embedding", "index_put", "index_select")
_OPTIMIZER_WORDS = ("Optimizer.step#", "aten::_foreach_", "adamw", "linalg_vector_norm")
_COMPILED_WORDS = ("CompiledFxGraph", "Torch-Compiled Region")
_FUSED_PREFIXES = ("triton_", "graph_", "cpp_fused", "kernel_cpp")
# More of a step than this in compiled code that does not say what it computes tells nothing.
_LARGEST_UNNAMED = 0.05


@dataclass(frozen=True)
class Operation:
    """One entry of a profile."""

    name: str
    own_s: float
    """Without the operations inside it; on a CUDA device of one kernel."""
    shapes: tuple[tuple[int, ...], ...] = ()
    parents: tuple[str, ...] = ()
    kernel: str = ""


@dataclass(frozen=True)
class Parts:
    """Seconds per step by part; None where a part cannot be told apart, with the reason."""

    step_s: float
    """Of the profiled steps."""
    seconds: dict[str, float | None]
    reasons: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """For a record."""
        return asdict(self)


def sum_parts(
    operations: Iterable[Operation],
    architecture: Architecture,
    *,
    sequence_length: int,
    micro_batch_tokens: int,
    num_steps: int,
    elapsed_s: float,
    data_wait_s: float,
) -> Parts:
    """The operations of some steps, added up by part, per step.

    The head is everything as wide as the vocabulary, and a fused kernel that names a part of the
    loss; attention is its kernels, its batched products and its softmax. Fused kernels that name
    neither are elementwise work, whatever else was fused into them.
    """
    totals = dict.fromkeys(PART_NAMES, 0.0)
    unnamed_s = 0.0
    for operation in operations:
        part = part_of(
            operation,
            architecture,
            sequence_length=sequence_length,
            micro_batch_tokens=micro_batch_tokens,
        )
        if part == "other" and any(word in operation.name for word in _COMPILED_WORDS):
            unnamed_s += operation.own_s
        totals[part] += operation.own_s
    named_s = sum(totals.values()) - totals["other"]
    totals["data wait"] = data_wait_s
    totals["other"] = elapsed_s - named_s - data_wait_s
    seconds: dict[str, float | None] = {name: total / num_steps for name, total in totals.items()}
    reasons: dict[str, str] = {}
    if unnamed_s > _LARGEST_UNNAMED * elapsed_s:
        why = "compiled kernels of this system do not say what they compute"
        reasons |= dict.fromkeys(("attention", "head", "elementwise"), why)
    if not _vocabulary_stands_out(architecture, sequence_length):
        why = "the vocabulary is as wide as something else, and shapes do not tell them apart"
        reasons |= dict.fromkeys(("head", "matmuls", "elementwise"), why)
    if named_s == 0.0:
        reasons |= dict.fromkeys(PART_NAMES[:5], "the profile holds no operation")
    if totals["other"] < -TOLERANCE * elapsed_s:
        reasons["other"] = (
            f"the parts sum to {named_s + data_wait_s:.4g} s, more than the {elapsed_s:.4g} s "
            "the steps took"
        )
    return Parts(elapsed_s / num_steps, seconds | dict.fromkeys(reasons), reasons)


def part_of(
    operation: Operation,
    architecture: Architecture,
    *,
    sequence_length: int,
    micro_batch_tokens: int,
) -> str:
    """The part that one operation belongs to."""
    name = operation.name
    words = f"{name} {operation.kernel}".lower()
    is_wide = _is_of_logits(operation, architecture.vocab_size, micro_batch_tokens)
    label = operation.kernel or name
    if any(word in each for each in (name, *operation.parents) for word in _OPTIMIZER_WORDS):
        return "optimizer"
    if name in _BATCHED_PRODUCTS or _has(words, _ATTENTION_WORDS):
        return "attention"
    if name in _PRODUCTS or _has(words, _PRODUCT_WORDS):
        return "head" if is_wide else "matmuls"
    if not name.startswith("aten::") and not label.startswith(_FUSED_PREFIXES):
        return "elementwise" if operation.kernel else "other"
    # A constant that the loss uses too may name it in a kernel of attention.
    if "softmax" in words.replace("log_softmax", ""):
        return "attention"
    if _has(words, _HEAD_WORDS):
        return "head"
    if _has(words, _EMBEDDING_WORDS):
        return "elementwise"
    if is_wide:
        return "head"
    return "attention" if _is_of_scores(operation, architecture, sequence_length) else "elementwise"


def _has(text: str, words: tuple[str, ...]) -> bool:
    return any(word in text for word in words)


def _is_of_logits(operation: Operation, vocab_size: int, micro_batch_tokens: int) -> bool:
    """Whether an operation is on something as wide as the vocabulary.

    Where a micro-batch has as many tokens, so is whatever is as long: logits are both at once.
    """
    sizes = list(operation.shapes)
    factors = sizes[:2] if operation.name == "aten::mm" else sizes[1:3]
    if operation.name in _PRODUCTS and len(factors) == 2:
        left, right = factors
        sizes = [(*left, *right[1:])]
    needed = 2 if vocab_size == micro_batch_tokens else 1
    return any(size.count(vocab_size) >= needed for size in sizes)


def _is_of_scores(operation: Operation, architecture: Architecture, sequence_length: int) -> bool:
    """Whether an operation is on something that has a number for every pair of positions."""
    pair = (sequence_length, sequence_length)
    is_clear = sequence_length not in (architecture.head_dim, architecture.hidden_size)
    return any(shape[-2:] == pair and (len(shape) == 4 or is_clear) for shape in operation.shapes)


def _vocabulary_stands_out(architecture: Architecture, sequence_length: int) -> bool:
    widths = {size for shape in architecture.parameter_shapes().values() for size in shape[1:]}
    q, kv = architecture.query_width, architecture.key_value_width
    widths |= {q, kv, q + 2 * kv, architecture.hidden_size, sequence_length}
    widths |= {architecture.intermediate_size, 2 * architecture.intermediate_size}
    return architecture.vocab_size not in widths
