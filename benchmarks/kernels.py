"""What the compiled kernels of a training step are on a GPU that is not there, and what they move.

    python benchmarks/kernels.py [--arch qwen2-0.5b] [--rows 16] [--seq-length 2048] [--json]

Compiles a block and the loss as `apr pretrain` does on CUDA, for an H200, and prints for each graph
how many kernels it launches, how many bytes per token they read and write by the compiler's own
count, and what it leaves to libraries; for a block beside it what the roofline of `apr plan` takes
for granted. Ends with 5 where something does not compile, or a kernel spills its registers.

No GPU is needed and none is used; torch must be built for CUDA, which brings Triton. Nothing runs
on the card, and nothing is timed.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from apr.architecture import PRESET_NAMES, Architecture, preset
from apr.model.attention import Way, varlen
from apr.model.transformer import Block, rotary_tables
from apr.train.head_chunks import tokens_per_chunk
from apr.train.linear_cross_entropy import loss_and_gradient
from apr.train.roofline import work_per_token

if TYPE_CHECKING:
    from absent_gpu import AbsentGpu, Graph

_BF16 = torch.bfloat16


def main() -> int:
    """Compile, print, and say whether all of it did."""
    options = _options()
    if find_spec("triton") is None:
        sys.exit("kernels.py: torch is built for the CPU here; install a build for CUDA")
    from absent_gpu import absent_gpu

    vocab_size = options.vocab_size
    shape = preset(options.arch, tokenizer_vocab_size=vocab_size)
    tokens = options.rows * options.seq_length
    chunk = min(tokens, tokens_per_chunk(vocab_size, on_cpu=False))
    with absent_gpu() as gpu:
        graphs = {
            f"loss of {chunk:,} tokens": (gpu.graphs_of(_loss(gpu, shape, chunk)), chunk),
            **{
                f"block, {name}": (gpu.graphs_of(_block(gpu, shape, way, options)), tokens)
                for name, way in {"varlen": varlen, "flash": _flash}.items()
            },
        }
        assembled = gpu.assembled()
    spilling = sorted({each.name for each in assembled if each.spilled_bytes})
    problems = [graph.problem for found, _ in graphs.values() for graph in found if graph.problem]
    assumed_bytes = _assumed_bytes(shape, options.seq_length, tokens)
    if options.json:
        told = {
            "torch": torch.__version__,
            "graphs": {
                name: [asdict(each) for each in found] for name, (found, _) in graphs.items()
            },
            "assumed_bytes_per_token_of_a_block": assumed_bytes,
            "num_assembled": len(assembled),
            "most_registers": max((each.registers for each in assembled), default=None),
            "spilling": spilling,
        }
        print(json.dumps(told, indent=1))
    else:
        of = f"{options.rows} rows of {options.seq_length}"
        print(f"{options.arch}, {of}, torch {torch.__version__}")
        for name, (found, num_tokens) in graphs.items():
            _print_graphs(name, found, num_tokens)
        print(f"a block by the roofline: {assumed_bytes:,.0f} bytes per token")
        print(f"{len(assembled)} kernels assembled, with block sizes to choose from; ", end="")
        print(f"registers spilled by: {', '.join(spilling) or 'none'}")
    return 5 if problems or spilling or not assembled else 0


def _print_graphs(name: str, graphs: "list[Graph]", num_tokens: int) -> None:
    for graph in graphs:
        if graph.problem:
            print(f"{name}, {graph.kind}: DOES NOT COMPILE: {graph.problem}")
            continue
        launches = sum(each.num_launches for each in graph.kernels)
        moved_bytes = graph.moved_bytes / num_tokens
        print(
            f"{name}, {graph.kind}: {launches} kernels, {moved_bytes:,.0f} bytes per token; "
            f"{len(graph.others)} calls of libraries"
        )
    whole_bytes = sum(graph.moved_bytes for graph in graphs)
    if len(graphs) > 1:
        print(f"{name}: {whole_bytes / num_tokens:,.0f} bytes per token")


def _assumed_bytes(shape: Architecture, sequence_length: int, tokens: int) -> float:
    """Elementwise work of a block, and casts of its weights and their gradients for each token."""
    num_layers = shape.num_hidden_layers
    elementwise = work_per_token(
        shape, sequence_length=sequence_length, micro_batch_tokens=tokens, batch_tokens=tokens
    ).elementwise_bytes
    of_blocks = shape.num_matmul_parameters() - shape.vocab_size * shape.hidden_size
    # fp32 read and bf16 written, of weights; of gradients the reverse.
    return (elementwise + 12 * of_blocks / tokens) / num_layers


def _block(
    gpu: "AbsentGpu", shape: Architecture, way: Way, options: argparse.Namespace
) -> Callable[[], None]:
    """A block forward and backward, compiled as `train.acceleration` does."""
    block, rows, positions = Block(shape, 0), options.rows, options.seq_length

    def work() -> None:
        for module in block.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(torch.empty(parameter.shape)))
        x_BTD = torch.empty(rows, positions, shape.hidden_size, dtype=_BF16, requires_grad=True)
        rotary = rotary_tables(shape, 0, positions, device=torch.device("cpu"))
        compute: Any = torch.compile(
            Block.compute, dynamic=False, fullgraph=True, backend=gpu.backend
        )
        compute(block, x_BTD, way(x_BTD, None), rotary, None).sum().backward()

    return work


def _loss(gpu: "AbsentGpu", shape: Architecture, tokens: int) -> Callable[[], None]:
    """What is computed between the matrix products of a chunk of tokens."""

    def work() -> None:
        compute: Any = torch.compile(
            loss_and_gradient, dynamic=False, fullgraph=True, backend=gpu.backend
        )
        with torch.no_grad():
            logits_CV = torch.empty(tokens, shape.vocab_size, dtype=_BF16)
            compute(logits_CV, torch.zeros(tokens, dtype=torch.int64))

    return work


def _flash(_x_BTD: Tensor, _documents_BT: Tensor | None) -> Any:
    """The operation that torch chooses on CUDA; asked for on a CPU it would choose a CPU's."""

    def attend(q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor) -> Tensor:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return flash(q_BHTE, k_BKTE, v_BKTE, 0.0, True)[0]

    return attend


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arch", choices=PRESET_NAMES, default="qwen2-0.5b")
    parser.add_argument("--vocab-size", type=int, default=151_936)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--seq-length", type=int, default=2048)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
