"""What sharing a run among ranks costs: one process with two threads, two with one each.

    python benchmarks/ranks.py [--rounds 3] [--steps 8] [--ranks 2] [--memory] [--json]

The reference model of `apr bench train` takes the same steps on the same rows in one process, on
ranks that each keep the model (ddp), and on ranks that deal it out (fsdp), in turn, all with the
same number of threads together. A round's figure is the median of its steps, after two that warm
up and compile. Quote the ratio.

With --memory a model of 426 MB is built, judged and trained for a step in each way, and the figure
is the most that a rank of it ever had.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from apr.architecture import Architecture
    from apr.model.transformer import Transformer
    from apr.train.acceleration import Acceleration
    from apr.train.data_parallel import DealtOut
    from apr.train.ranks import Ranks
    from apr.train.step import GradientExchange, SummedLoss

WAYS = ("one process", "ddp", "fsdp")
WARMUP_STEPS = 2


def main() -> None:
    """Alternate the ways and print medians and ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        rank = os.environ.get("RANK", "0")
        found = peak_mib_of(options.way) if options.memory else steps_of(options.way, options.steps)
        if rank == "0" or options.memory:
            # In one piece, between those of the other ranks.
            os.write(1, f"{json.dumps(found)}\n".encode())
        return
    if options.memory:
        for way in WAYS:
            found = said_in_processes(way, options.ranks, "--memory")
            peaks = ", ".join(f"{json.loads(line):,.0f}" for line in found)
            print(f"{way:<12} {peaks} MiB")
        return
    rounds = [
        {way: in_processes(way, options.ranks, options.steps) for way in WAYS}
        for _ in range(options.rounds)
    ]
    if options.json:
        print(json.dumps({"step_s": rounds}))
        return
    for way in WAYS:
        ratios = [each["one process"] / each[way] for each in rounds]
        spread = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        step_s = statistics.median(each[way] for each in rounds)
        print(
            f"{way:<12} {step_s:7.3f} s a step   speed {statistics.median(ratios):.2f}  ({spread})"
        )


def in_processes(way: str, num_ranks: int, num_steps: int) -> float:
    """Fresh processes; the median of their steps."""
    said = said_in_processes(way, num_ranks, "--steps", str(num_steps))
    return statistics.median(json.loads(said[-1])[WARMUP_STEPS:])


def said_in_processes(way: str, num_ranks: int, *options: str) -> list[str]:
    """The lines that fresh processes print."""
    command = [__file__, "--way", way, *options]
    threads = num_ranks
    if way != "one process":
        threads = 1
        command = ["-m", "torch.distributed.run", "--nproc-per-node", str(num_ranks), *command]
    done = subprocess.run(
        [sys.executable, *command],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"},
    )
    return done.stdout.splitlines()


def ranks_of(way: str) -> "Ranks":
    """Those that torchrun has started."""
    from apr.train.ranks import ALONE, Ranks

    if way == "one process":
        return ALONE
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Ranks(*(int(os.environ[name]) for name in names))


def shared_model(
    way: str, acceleration: "Acceleration", shape: "Architecture", ranks: "Ranks"
) -> "tuple[Transformer, SummedLoss, GradientExchange, DealtOut | None]":
    """A fresh model, the loss to train it with, and how its gradients are exchanged."""
    from apr.model.init import fresh_weights
    from apr.train.data_parallel import replicate
    from apr.train.start import dealt_out_model, whole_model
    from apr.train.step import NO_EXCHANGE

    weights = fresh_weights(shape, seed=0)
    if way == "fsdp":
        model, dealt = dealt_out_model(shape, acceleration, weights, ranks)
        return model, dealt.through(dealt.own_loss), dealt.exchange, dealt
    model = whole_model(shape, acceleration, weights)
    loss, exchange = acceleration.loss_function(), NO_EXCHANGE
    if ranks.are_many:
        loss, exchange = replicate(model, loss, ranks)
    return model, loss, exchange, None


def peak_mib_of(way: str) -> float:
    """The most memory of this process after building, judging and training a larger model."""
    import re
    from functools import partial
    from pathlib import Path

    import torch

    from apr.architecture import preset
    from apr.bench.reference import workload
    from apr.train.acceleration import Acceleration
    from apr.train.allocator import keep_freed_memory
    from apr.train.batches import Batch
    from apr.train.gradient_sketch import measure_sketches
    from apr.train.gradients_gate import check_gradients
    from apr.train.optimizer import build_optimizer
    from apr.train.ranks import joined
    from apr.train.step import train_step

    keep_freed_memory()
    shape = preset("smollm2-135m", tokenizer_vocab_size=512, vocab_size=512)
    config = workload({"device": "cpu"}, on_cpu=True, num_steps=1, num_warmup_steps=0).config
    random = np.random.default_rng(0)
    ids = random.integers(shape.vocab_size, size=(1, 65))
    documents = np.zeros((1, 64), np.int64)
    batch = Batch(ids[:, :-1].copy(), ids[:, 1:].copy(), documents, (0,))
    acceleration = Acceleration(torch.device("cpu"), torch.float32, False, ())
    with joined(ranks_of(way)) as ranks:
        model, loss, exchange, dealt = shared_model(way, acceleration, shape, ranks)
        finding = check_gradients(
            model,
            batch,
            accelerated_loss=dealt.own_loss if dealt else acceleration.loss_function(),
            document_mask=True,
            measure=partial(measure_sketches, dealt) if dealt else None,
        )
        assert finding.verdict == "PASS", finding
        train_step(
            model,
            build_optimizer(model, config),
            [batch],
            step=1,
            learning_rate=1e-4,
            max_grad_norm=1.0,
            document_mask=True,
            summed_loss=loss,
            exchange=exchange,
        )
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def steps_of(way: str, num_steps: int) -> list[float]:
    """Seconds of every step of this process."""
    from apr.bench.reference import workload
    from apr.train.acceleration import choose_acceleration
    from apr.train.allocator import keep_freed_memory
    from apr.train.batches import Batch
    from apr.train.optimizer import build_optimizer
    from apr.train.ranks import joined
    from apr.train.step import train_step

    keep_freed_memory()
    work = workload({"device": "cpu"}, on_cpu=True, num_steps=1, num_warmup_steps=0)
    config, shape = work.config, work.architecture
    with joined(ranks_of(way)) as ranks:
        acceleration = choose_acceleration(config, shape)
        model, loss, exchange, _ = shared_model(way, acceleration, shape, ranks)
        optimizer = build_optimizer(model, config)
        random = np.random.default_rng(0)
        rows = config.batch_size // ranks.world_size
        steps_s: list[float] = []
        for step in range(1, WARMUP_STEPS + num_steps + 1):
            size = (config.batch_size, config.seq_length + 1)
            ids = random.integers(shape.vocab_size, size=size)
            mine = ids[ranks.rank * rows : (ranks.rank + 1) * rows]
            batch = Batch(
                np.ascontiguousarray(mine[:, :-1]),
                np.ascontiguousarray(mine[:, 1:]),
                np.zeros((rows, config.seq_length), np.int64),
                tuple(range(rows)),
            )
            ranks.wait()
            started_s = time.perf_counter()
            train_step(
                model,
                optimizer,
                [batch],
                step=step,
                learning_rate=1e-4,
                max_grad_norm=1.0,
                document_mask=True,
                summed_loss=loss,
                exchange=exchange,
            )
            steps_s.append(time.perf_counter() - started_s)
    return steps_s


if __name__ == "__main__":
    main()
