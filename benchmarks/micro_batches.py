"""Is a batch faster in several micro-batches, for the sake of caches: the reference model on a CPU.

    python benchmarks/micro_batches.py [--rounds 12] [--precision fp32]

Eager steps of 16 x 256 tokens as 1, 2 and 4 micro-batches, in turn, in one process. Quote the
ratios, which are those of neighbouring steps.
"""

import argparse
import statistics
import time

import numpy as np
import torch

from apr.bench.reference import REFERENCE
from apr.model.init import initialize
from apr.model.transformer import Transformer
from apr.train.allocator import keep_freed_memory
from apr.train.batches import Batch
from apr.train.loss import summed_loss
from apr.train.step import accumulate

BATCH_SIZE, SEQUENCE_LENGTH = 16, 256

PARTS = (1, 2, 4)


def main() -> None:
    """Take the steps in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    options = parser.parse_args()
    keep_freed_memory()
    model = Transformer(REFERENCE)
    initialize(model, seed=0)
    model.compute_dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    shape = (BATCH_SIZE, SEQUENCE_LENGTH)
    ids = np.random.default_rng(0).integers(REFERENCE.vocab_size, size=shape)
    batch = Batch(ids, ids, np.zeros_like(ids), tuple(range(BATCH_SIZE)))
    # The first round warms up.
    rounds = [{k: seconds(model, batch, k) for k in PARTS} for _ in range(options.rounds + 1)][1:]
    for k in PARTS:
        median_s = statistics.median(taken[k] for taken in rounds)
        ratio = statistics.median(taken[k] / taken[1] for taken in rounds)
        print(f"{k} micro-batches  {1e3 * median_s:8.1f} ms  {ratio:.3f} of the time of one")
    print(f"{options.precision}, {torch.get_num_threads()} threads, torch {torch.__version__}")


def seconds(model: Transformer, batch: Batch, num_parts: int) -> float:
    """One accumulated gradient."""
    model.zero_grad(set_to_none=True)
    started_s = time.perf_counter()
    accumulate(
        model,
        batch.split(num_parts),
        num_tokens=batch.num_counted_tokens,
        document_mask=True,
        summed_loss=summed_loss,
    )
    return time.perf_counter() - started_s


if __name__ == "__main__":
    main()
