"""What checkpoints cost a training run, and how soon a resumed run takes its next step.

    python benchmarks/checkpoint.py [--rounds 5] [--steps 12] [--no-resume] [--json]

The reference model of train_throughput.py takes the same number of steps in turn without a
checkpoint, with one written beside the training as `apr pretrain` does, and with one that is
waited for. The difference to the neighbour without one is what a checkpoint costs, whatever it
costs it by; the share is that of a run with a checkpoint every 200 steps. On a busy machine that
difference is noise; `at most` counts every second of stalling and writing as lost. The time to
resume is from the start of a process to its first step, on the run that `apr demo` makes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train_throughput import BATCH_SIZE, REFERENCE, SEQUENCE_LENGTH, SKIPPED_STEPS

STEPS_PER_CHECKPOINT = 200
WAYS = ("none", "beside", "waited for")
RESUMES = 3


@dataclass(frozen=True)
class Segment:
    """Some steps and at most one checkpoint."""

    way: str
    elapsed_s: float
    stall_s: float
    background_s: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help="steps beside one checkpoint")
    parser.add_argument("--no-resume", action="store_true", help="leave the time to resume out")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--resume-run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.resume_run:
        print(resumed_at_s(options.resume_run))
        return
    rounds = list(measure(options.rounds, options.steps))
    resumes = [] if options.no_resume else list(resume_times_s())
    report(rounds, resumes, num_steps=options.steps, as_json=options.json)


def measure(num_rounds: int, num_steps: int) -> Iterable[dict[str, Segment]]:
    """One process, one model; the three ways in turn."""
    import numpy as np
    import torch

    from apr.model.init import initialize
    from apr.model.transformer import Transformer
    from apr.train.acceleration import choose_acceleration, keep_freed_memory, repeatable
    from apr.train.batches import Batch
    from apr.train.checkpoint import TrainState
    from apr.train.checkpoint_writer import CheckpointWriter
    from apr.train.config import resolve_config
    from apr.train.optimizer import build_optimizer
    from apr.train.step import train_step

    nowhere = Path("unused")
    config = resolve_config(
        {
            "dataset": nowhere,
            "tokenizer": nowhere,
            "run_dir": nowhere,
            "num_steps": 100_000,
            "batch_size": BATCH_SIZE,
            "seq_length": SEQUENCE_LENGTH,
        }
    )
    keep_freed_memory()
    random = np.random.default_rng(0)
    with repeatable(config.device, seed=0), tempfile.TemporaryDirectory() as scratch:
        acceleration = choose_acceleration(config, REFERENCE)
        model = Transformer(REFERENCE)
        initialize(model, seed=0)
        acceleration.apply_to(model)
        summed_loss, optimizer = acceleration.loss_function(), build_optimizer(model, config)
        state = TrainState()

        def take_steps(count: int) -> None:
            for _ in range(count):
                ids = random.integers(REFERENCE.vocab_size, size=(BATCH_SIZE, SEQUENCE_LENGTH + 1))
                batch = Batch(
                    np.ascontiguousarray(ids[:, :-1]),
                    np.ascontiguousarray(ids[:, 1:]),
                    np.zeros((BATCH_SIZE, SEQUENCE_LENGTH), np.int64),
                    tuple(range(BATCH_SIZE)),
                )
                state.step += 1
                train_step(
                    model,
                    optimizer,
                    [batch],
                    step=state.step,
                    learning_rate=1e-4,
                    max_grad_norm=1.0,
                    document_mask=True,
                    summed_loss=summed_loss,
                )

        with CheckpointWriter(
            Path(scratch),
            model,
            optimizer,
            tokenizer=small_tokenizer(),
            keep=2,
            before_writing=lambda: None,
        ) as checkpoints:

            def segment(way: str) -> Segment:
                stall_s, background_s = state.checkpoint_s, state.checkpoint_write_s
                started_s = time.perf_counter()
                if way != "none":
                    checkpoints.save(state, provenance=[])
                if way == "waited for":
                    checkpoints.wait(state)
                take_steps(num_steps)
                checkpoints.wait(state)
                return Segment(
                    way,
                    time.perf_counter() - started_s,
                    state.checkpoint_s - stall_s,
                    state.checkpoint_write_s - background_s,
                )

            take_steps(SKIPPED_STEPS)
            segment("beside")
            settings = f"{torch.get_num_threads()} threads, compiled: {acceleration.compiled}"
            print(settings, file=sys.stderr)
            for number in range(num_rounds):
                # Every way follows every other.
                turn = WAYS[number % len(WAYS) :] + WAYS[: number % len(WAYS)]
                yield {way: segment(way) for way in turn}


def small_tokenizer() -> Any:
    """Any tokenizer; it is a small part of a checkpoint."""
    from apr.tokenizer.train import train_bpe

    sources = sorted((Path(__file__).parents[1] / "src" / "apr" / "train").glob("*.py"))
    return train_bpe((path.read_text(encoding="utf-8") for path in sources), vocab_size=512)


def resume_times_s() -> Iterable[float]:
    """Seconds from the start of a process until the demo's run is about to take its next step."""
    from apr.errors import Interrupted
    from apr.jobs.demo import demo
    from apr.jobs.sitting import Listener

    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "demo"
        with suppress(Interrupted):
            demo(root, listener=Listener(should_stop=should_stop))
        for _ in range(RESUMES):
            started_s = time.monotonic()
            done = subprocess.run(
                [sys.executable, __file__, "--resume-run", str(root)],
                check=True,
                capture_output=True,
                text=True,
            )
            yield float(done.stdout.splitlines()[-1]) - started_s


def resumed_at_s(run_dir: Path) -> float:
    """Resume, and stop when the loop asks before its first step; the clock at that moment."""
    from apr.errors import Interrupted
    from apr.jobs.resume import resume
    from apr.jobs.sitting import Listener

    moments_s: list[float] = []

    def should_stop() -> bool:
        moments_s.append(time.monotonic())
        return True

    try:
        resume(run_dir, listener=Listener(should_stop=should_stop))
    except Interrupted:
        return moments_s[0]
    raise RuntimeError("the run took no step")


def report(
    rounds: list[dict[str, Segment]], resumes_s: list[float], *, num_steps: int, as_json: bool
) -> None:
    """The table, or the same as one JSON object."""
    step_s = statistics.median(each["none"].elapsed_s for each in rounds) / num_steps
    size_bytes = 12 * REFERENCE.num_parameters
    rows = {}
    for way in WAYS[1:]:
        costs_s = [each[way].elapsed_s - each["none"].elapsed_s for each in rounds]
        stall_s = statistics.median(each[way].stall_s for each in rounds)
        background_s = statistics.median(each[way].background_s for each in rounds)
        # Even if no step were taken while a checkpoint is written beside.
        worst_s = stall_s + background_s if way == "beside" else stall_s
        rows[way] = {
            "cost_s": statistics.median(costs_s),
            "costs_s": costs_s,
            "share": statistics.median(costs_s) / (STEPS_PER_CHECKPOINT * step_s),
            "share_at_most": worst_s / (STEPS_PER_CHECKPOINT * step_s),
            "stall_s": stall_s,
            "background_s": background_s,
        }
    if as_json:
        print(json.dumps({"step_s": step_s, "checkpoints": rows, "resumes_s": resumes_s}))
        return
    print(
        f"{REFERENCE.num_parameters} parameters, {size_bytes / 1e6:.0f} MB of weights and moments, "
        f"{step_s:.3f} s per step; one checkpoint per {STEPS_PER_CHECKPOINT} steps"
    )
    print("                 share   at most   costs s   stall s   written in s   costs by round")
    for way, row in rows.items():
        spread = ", ".join(f"{cost:.2f}" for cost in row["costs_s"])
        print(
            f"  {way:<12} {row['share']:>7.2%} {row['share_at_most']:>9.2%} {row['cost_s']:>9.3f} "
            f"{row['stall_s']:>9.3f} {row['background_s']:>14.3f}   {spread}"
        )
    if resumes_s:
        spread = ", ".join(f"{each:.1f}" for each in resumes_s)
        print(f"  resume to first step, demo: {statistics.median(resumes_s):.1f} s  ({spread})")


if __name__ == "__main__":
    main()
