"""What sharing a run among ranks costs: one process with two threads, two with one each.

    python benchmarks/ranks.py [--rounds 3] [--steps 8] [--ranks 2] [--json]

The reference model of `apr bench train` takes the same steps on the same rows in one process, on
ranks that each keep the model (ddp), and on ranks that deal it out (fsdp), in turn, all with the
same number of threads together. A round's figure is the median of its steps, after two that warm
up and compile. Quote the ratio.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np

WAYS = ("one process", "ddp", "fsdp")
WARMUP_STEPS = 2


def main() -> None:
    """Alternate the ways and print medians and ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        steps_s = steps_of(options.way, options.steps)
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps(steps_s))
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
    command = [__file__, "--way", way, "--steps", str(num_steps)]
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
    return statistics.median(json.loads(done.stdout.splitlines()[-1])[WARMUP_STEPS:])


def steps_of(way: str, num_steps: int) -> list[float]:
    """Seconds of every step of this process."""
    from apr.bench.reference import workload
    from apr.model.init import initialize
    from apr.model.transformer import Transformer
    from apr.train.acceleration import choose_acceleration, keep_freed_memory
    from apr.train.batches import Batch
    from apr.train.data_parallel import share
    from apr.train.optimizer import build_optimizer
    from apr.train.ranks import ALONE, Ranks, joined
    from apr.train.step import NO_EXCHANGE, train_step

    keep_freed_memory()
    work = workload({"device": "cpu"}, on_cpu=True, num_steps=1, num_warmup_steps=0)
    config, shape = work.config, work.architecture
    if way == "one process":
        ranks = ALONE
    else:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        rank, world_size, local_rank, local_world_size = (int(os.environ[name]) for name in names)
        ranks = Ranks(rank, world_size, local_rank, local_world_size)
    with joined(ranks):
        acceleration = choose_acceleration(config, shape)
        model = Transformer(shape)
        initialize(model, seed=0)
        acceleration.apply_to(model)
        loss, exchange = acceleration.loss_function(), NO_EXCHANGE
        if ranks.are_many:
            loss, exchange = share(model, loss, ranks, is_dealt_out=way == "fsdp")
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
