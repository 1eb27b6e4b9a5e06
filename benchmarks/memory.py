"""Peak memory of real training steps, beside what `apr.train.memory` estimates.

    python benchmarks/memory.py [--steps 16] [--case NAME ...] [--json]

Every case runs in a fresh process: the comparison of the gradient gate where a run makes one, then
full optimizer steps on random ids, with a copy of weights and moments held from the third step on,
as a checkpoint that is written in the background holds one. The allocator keeps freed blocks as it
does in `apr pretrain`, so the peak creeps up over the first dozen steps: few steps flatter.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from apr.architecture import Architecture, preset
from apr.bench.reference import REFERENCE
from apr.train.memory import estimate_memory
from apr.train.workload import Workload

_MB = 1e6


@dataclass(frozen=True)
class Case:
    """One shape, and how it is trained."""

    architecture: Architecture
    batch_size: int
    sequence_length: int
    precision: Literal["fp32", "bf16"]
    compiled: bool = False
    grad_accum: int = 1
    attention: str = "pieces"

    @property
    def workload(self) -> Workload:
        """The same, as the estimate takes it."""
        return Workload(
            self.architecture,
            self.batch_size,
            self.sequence_length,
            grad_accum=self.grad_accum,
            precision=self.precision,
            compiled=self.compiled,
            attention=self.attention,
        )


_TINY = preset("tiny", tokenizer_vocab_size=4096)
_DEMO = preset("demo", tokenizer_vocab_size=4096)
_WIDE_HEAD = replace(REFERENCE, vocab_size=32_000)
# The vocabulary of Qwen2.5 on a body that is next to nothing beside it.
_WIDEST_HEAD = replace(REFERENCE, vocab_size=151_936, num_hidden_layers=2)
CASES = {
    "tiny": Case(_TINY, 8, 128, "fp32"),
    "demo": Case(_DEMO, 16, 256, "fp32"),
    "reference": Case(REFERENCE, 16, 256, "fp32"),
    "reference-bf16": Case(REFERENCE, 16, 256, "bf16"),
    "reference-compiled": Case(REFERENCE, 16, 256, "fp32", compiled=True),
    "reference-bf16-compiled": Case(REFERENCE, 16, 256, "bf16", compiled=True),
    "reference-accumulated": Case(REFERENCE, 16, 256, "fp32", grad_accum=4),
    "long": Case(REFERENCE, 4, 1024, "fp32"),
    "long-bf16": Case(REFERENCE, 4, 1024, "bf16"),
    "reference-plain": Case(REFERENCE, 16, 256, "fp32", attention="plain"),
    "reference-bf16-plain": Case(REFERENCE, 16, 256, "bf16", attention="plain"),
    "long-flash": Case(REFERENCE, 4, 1024, "fp32", attention="flash"),
    "long-bf16-flash": Case(REFERENCE, 4, 1024, "bf16", attention="flash"),
    "vocabulary-32k": Case(_WIDE_HEAD, 8, 256, "fp32"),
    "vocabulary-32k-bf16": Case(_WIDE_HEAD, 8, 256, "bf16"),
    "vocabulary-152k": Case(_WIDEST_HEAD, 4, 256, "fp32"),
    "vocabulary-152k-bf16": Case(_WIDEST_HEAD, 4, 256, "bf16"),
}


def main() -> None:
    """Measure every case that was asked for and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--case", choices=CASES, nargs="*", default=list(CASES))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(train(CASES[options.child], options.steps)))
        return
    found = {}
    for name in options.case:
        estimate = estimate_memory(CASES[name].workload)
        found[name] = {
            "measured_bytes": measured(name, options.steps),
            "estimated_bytes": estimate.peak_bytes,
            "moment": estimate.moment,
        }
        if not options.json:
            print(_line(name, **found[name]), flush=True)
    if options.json:
        print(json.dumps(found))


def measured(name: str, num_steps: int) -> int:
    """The peak of a case in a fresh process."""
    command = [sys.executable, __file__, "--child", name, "--steps", str(num_steps)]
    own = {"OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | own)
    return json.loads(done.stdout.splitlines()[-1])


def _line(name: str, *, measured_bytes: int, estimated_bytes: int, moment: str) -> str:
    return (
        f"{name:<24} {measured_bytes / _MB:7.0f} MB  estimated {estimated_bytes / _MB:7.0f} MB  "
        f"{estimated_bytes / measured_bytes - 1:+5.0%}  {moment}"
    )


def train(case: Case, num_steps: int) -> int:
    """Take real steps; the most memory this process has had, in bytes."""
    import numpy as np
    import torch

    from apr.bench.peak_memory import peak_memory_bytes
    from apr.model.init import initialize
    from apr.model.transformer import Transformer
    from apr.train.acceleration import Acceleration
    from apr.train.allocator import keep_freed_memory
    from apr.train.batches import Batch
    from apr.train.gradients_gate import check_gradients
    from apr.train.optimizer import build_optimizer
    from apr.train.repeatable import repeatable
    from apr.train.resolved_config import resolve_config
    from apr.train.step import train_step

    nowhere = Path("unused")
    config = resolve_config({"dataset": nowhere, "tokenizer": nowhere, "run_dir": nowhere})
    keep_freed_memory()
    random = np.random.default_rng(0)

    def micro_batches() -> list[Batch]:
        shape = (case.batch_size, case.sequence_length)
        ids = random.integers(case.architecture.vocab_size, size=(shape[0], shape[1] + 1))
        inputs, targets = (np.ascontiguousarray(part) for part in (ids[:, :-1], ids[:, 1:]))
        rows = tuple(range(case.batch_size))
        return Batch(inputs, targets, np.zeros(shape, np.int64), rows).split(case.grad_accum)

    dtype = torch.bfloat16 if case.precision == "bf16" else torch.float32
    acceleration = Acceleration(torch.device("cpu"), dtype, case.compiled, (), case.attention)
    with repeatable("cpu", seed=0):
        model = Transformer(case.architecture)
        initialize(model, seed=0)
        acceleration.apply_to(model)
        summed_loss = acceleration.loss_function()
        check_gradients(
            model,
            micro_batches()[0],
            accelerated_loss=summed_loss,
            document_mask=True,
        )
        optimizer, held = build_optimizer(model, config), []
        for step in range(1, num_steps + 1):
            if step == 3:
                moments = (t for state in optimizer.state.values() for t in state.values())
                held = [t.detach().clone() for t in (*model.parameters(), *moments)]
            train_step(
                model,
                optimizer,
                micro_batches(),
                step=step,
                learning_rate=1e-4,
                max_grad_norm=1.0,
                document_mask=True,
                summed_loss=summed_loss,
            )
    del held
    peak_bytes, source = peak_memory_bytes(torch.device("cpu"))
    assert peak_bytes is not None, source
    return peak_bytes


if __name__ == "__main__":
    main()
