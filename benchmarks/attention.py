"""Ways of computing attention against each other: whole training passes, and the kernels alone.

    python benchmarks/attention.py steps [--lengths 128 256 512 1024 2048] [--precision bf16]
    python benchmarks/attention.py kernels [--lengths 512 1024 2048 4096 8192]

`steps` takes forward and backward passes of a model with every way in turn, within one process, and
prints medians of rounds and the ratio to the first way: hosts drift, ratios of neighbours do not.
On a CPU it is the reference model of `train_throughput.py`, compiled; on CUDA the shape of
Qwen2.5-0.5B. `kernels` times attention alone, forward and backward, with that shape's heads of 64,
and counts only the pairs that the mask shows. Documents are of random length, 300 tokens in the
mean. Ways that cannot be had are listed with the reason. Carry: apr, torch; nothing is fetched.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from apr.architecture import preset
from apr.bench.reference import REFERENCE
from apr.model.init import initialize
from apr.model.transformer import Transformer
from apr.train.allocator import keep_freed_memory
from apr.train.attention_choice import WAYS, unavailable
from apr.train.loss import summed_loss
from apr.train.repeatable import repeatable

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_CUDA = DEVICE.type == "cuda"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SHAPE = preset("qwen2-0.5b", tokenizer_vocab_size=0) if ON_CUDA else REFERENCE
LENGTHS = {
    "steps": [512, 2048, 4096] if ON_CUDA else [128, 256, 512, 1024, 2048],
    "kernels": [512, 1024, 2048, 4096, 8192] if ON_CUDA else [512, 1024, 2048],
}
TOKENS = {"steps": 32_768 if ON_CUDA else 4096, "kernels": 65_536 if ON_CUDA else 2048}
MEAN_DOCUMENT = 300
# Plain scores of every layer at once: beyond this it is not tried.
_MOST_PLAIN_BYTES = 60e9 if ON_CUDA else 6e9


@dataclass(frozen=True)
class Case:
    """One way under one mask."""

    way: str
    has_documents: bool

    def __str__(self) -> str:
        """As the tables name it."""
        return f"{self.way}, {'documents' if self.has_documents else 'causal'}"


CASES = [Case(way, documents) for documents in (False, True) for way in WAYS]


def main() -> None:
    """Measure what was asked for and print a table or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=["steps", "kernels"])
    parser.add_argument("--lengths", type=int, nargs="*")
    parser.add_argument("--precision", choices=sorted(DTYPES), default="bf16")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, help="of a micro-batch")
    parser.add_argument("--no-compile", dest="compiled", action="store_false")
    parser.add_argument("--documents-only", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    keep_freed_memory()
    measure = measure_steps if options.what == "steps" else measure_kernels
    tokens = options.tokens or TOKENS[options.what]
    found: list[dict[str, object]] = []
    with repeatable(str(DEVICE), seed=0):
        for positions in options.lengths or LENGTHS[options.what]:
            rows = max(1, tokens // positions)
            cases, why_not = usable_cases(positions, rows, DTYPES[options.precision], options)
            result = {
                "what": options.what,
                "device": torch.cuda.get_device_name() if ON_CUDA else "cpu",
                "torch": torch.__version__,
                "precision": options.precision,
                "shape": [rows, positions],
                "not_to_be_had": why_not,
            } | measure(rows, positions, DTYPES[options.precision], cases, options)
            found.append(result)
            if not options.json:
                print(table(result), flush=True)
    if options.json:
        print(json.dumps(found))


def usable_cases(
    positions: int, rows: int, dtype: torch.dtype, options: argparse.Namespace
) -> tuple[list[Case], dict[str, str]]:
    """The cases that this device computes, and why not the others."""
    usable, why_not = [], {}
    layers = SHAPE.num_hidden_layers if options.what == "steps" else 1
    scores_bytes = 8 * SHAPE.num_attention_heads * rows * positions**2 * layers
    for case in CASES:
        if options.documents_only and not case.has_documents:
            continue
        problem = unavailable(
            case.way, SHAPE, positions, DEVICE, dtype, document_mask=case.has_documents
        )
        if case.way == "plain" and scores_bytes > _MOST_PLAIN_BYTES:
            problem = f"its scores would take {scores_bytes / 1e9:.0f} GB"
        if problem:
            why_not[str(case)] = problem
        else:
            usable.append(case)
    return usable, why_not


def documents_of(rows: int, positions: int) -> Tensor:
    """Documents of random length along every row."""
    begins = np.random.default_rng(0).random((rows, positions)) < 1 / MEAN_DOCUMENT
    return torch.from_numpy(begins.cumsum(1)).to(DEVICE)


def measure_steps(
    rows: int, positions: int, dtype: torch.dtype, cases: list[Case], options: argparse.Namespace
) -> dict[str, object]:
    """Seconds of a forward and backward pass of the whole model, by case."""
    torch.compiler.reset()
    ids = torch.randint(SHAPE.vocab_size, (rows, positions), device=DEVICE)
    documents = documents_of(rows, positions)
    passes: dict[str, Callable[[], None]] = {}
    warm_up_s: dict[str, float] = {}
    model = Transformer(SHAPE).to(DEVICE)
    initialize(model, seed=0)
    for case in cases:
        passes[str(case)] = _pass(model, case, ids, documents, dtype, options.compiled)
        started_s = time.perf_counter()
        passes[str(case)]()
        warm_up_s[str(case)] = time.perf_counter() - started_s
    seconds = _interleaved(passes, options.rounds)
    return {
        "seconds": seconds,
        "rate": {case: rows * positions / s for case, s in _medians(seconds).items()},
        "unit": "tokens/s",
        "warm_up_s": warm_up_s,
    }


def _pass(
    weights: Transformer,
    case: Case,
    ids: Tensor,
    documents: Tensor,
    dtype: torch.dtype,
    compiled: bool,
) -> Callable[[], None]:
    model = Transformer(SHAPE).to(DEVICE)
    model.load_state_dict(weights.state_dict(), assign=True)
    model.compute_dtype, model.attention = dtype, WAYS[case.way]
    loss = torch.compile(summed_loss, dynamic=False) if compiled else summed_loss

    def once() -> None:
        model.zero_grad(set_to_none=True)
        total = loss(model, ids, ids, documents if case.has_documents else None).sum()
        (total / ids.numel()).backward()
        _finish()

    return once


def measure_kernels(
    rows: int, positions: int, dtype: torch.dtype, cases: list[Case], options: argparse.Namespace
) -> dict[str, object]:
    """Seconds of attention alone, forward and backward, by case."""
    e, h, k = SHAPE.head_dim, SHAPE.num_attention_heads, SHAPE.num_key_value_heads
    shapes = [(rows, positions, heads, e) for heads in (h, k, k)]
    # As a projection leaves them: heads side by side in every position.
    q, key, v = (
        torch.randn(shape, device=DEVICE, dtype=dtype).transpose(1, 2).requires_grad_()
        for shape in shapes
    )
    gradient = torch.randn_like(q)
    stream = torch.empty(rows, positions, 1, dtype=dtype, device=DEVICE)
    numbers = documents_of(rows, positions)
    both: dict[str, Callable[[], None]] = {}
    for case in cases:
        attend = WAYS[case.way](stream, numbers if case.has_documents else None)

        def once(attend: Callable[..., Tensor] = attend) -> None:
            torch.autograd.grad(attend(q, key, v), (q, key, v), gradient)
            _finish()

        once()
        both[str(case)] = once
    seconds = _interleaved(both, options.rounds)
    # Two products forward and five backward, two operations for each shown pair and channel.
    flops = {
        str(case): 7
        * 2
        * h
        * e
        * _shown_pairs(numbers if case.has_documents else None, rows, positions)
        for case in cases
    }
    return {
        "seconds": seconds,
        "rate": {case: flops[case] / s / 1e12 for case, s in _medians(seconds).items()},
        "unit": "TFLOP/s",
    }


def _shown_pairs(numbers: Tensor | None, rows: int, positions: int) -> int:
    """Pairs of a query and a key that the mask shows."""
    if numbers is None:
        return rows * positions * (positions + 1) // 2
    counts = [np.unique(row, return_counts=True)[1] for row in numbers.cpu().numpy()]
    return int(sum((sizes * (sizes + 1) // 2).sum() for sizes in counts))


def _interleaved(calls: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            started_s = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started_s)
    # The first round warms up.
    return {name: each[1:] for name, each in seconds.items()}


def _medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(each) for name, each in seconds.items()}


def _finish() -> None:
    if ON_CUDA:
        torch.cuda.synchronize()


def table(result: dict[str, object]) -> str:
    """One case to a line: the median, its rate, and how fast it is against the first."""
    seconds, rates = result["seconds"], result["rate"]
    assert isinstance(seconds, dict)
    assert isinstance(rates, dict)
    rows, positions = result["shape"]  # pyright: ignore[reportGeneralTypeIssues]
    lines = [f"{result['what']}, {rows} x {positions}, {result['precision']}, {result['device']}"]
    first = next(iter(seconds), None)
    for case, each in seconds.items():
        ratios = [ours / theirs for ours, theirs in zip(seconds[first], each, strict=True)]
        lines.append(
            f"  {case:<18} {1e3 * statistics.median(each):9.2f} ms  {rates[case]:10.1f} "
            f"{result['unit']}  {statistics.median(ratios):5.2f} times {first} "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )
    why_not = result["not_to_be_had"]
    assert isinstance(why_not, dict)
    return "\n".join(lines + [f"  {case:<18} {reason}" for case, reason in why_not.items()])


if __name__ == "__main__":
    main()
