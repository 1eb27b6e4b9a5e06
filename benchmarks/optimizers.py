"""Held-out loss against steps and time per step: AdamW and Muon on the demo's model and data.

    python benchmarks/optimizers.py [--num-steps 300] [--seeds 3] [--lr 2.5e-3 ...] [--json]
    python benchmarks/optimizers.py --time [--rounds 30]

Each pair trains the demo's configuration on the interpreter's own sources, in the same order from
the same weights. `--time` takes steps of both in turn, in one process, on the demo's shape and on
the reference model of train_throughput.py. Quote differences of one seed, and ratios.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apr.architecture import Architecture

OPTIMIZERS = ("adamw", "muon")


def main() -> None:
    """Prepare the demo's data once, train every pair, print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num-steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, nargs="+", default=[2.5e-3])
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.time:
        compare_times(options.rounds)
        return
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        prepare(root / "data")
        found = [
            train(root, optimizer, rate, seed, options.num_steps)
            for seed in range(options.seeds)
            for rate in options.lr
            for optimizer in OPTIMIZERS
        ]
    if options.json:
        print(json.dumps(found))
        return
    print("optimizer  rate     seed  " + "  ".join(f"{step:>7}" for step, _ in found[0]["val"]))
    for run in found:
        losses = "  ".join(f"{loss:7.4f}" for _, loss in run["val"])
        print(f"{run['optimizer']:<9}  {run['rate']:<7g}  {run['seed']:>4}  {losses}")


def prepare(root: Path) -> None:
    """The demo's corpus, tokenizer and shards, by the demo itself."""
    from apr.jobs.demo import demo

    demo(root, num_steps=2)


def train(root: Path, optimizer: str, rate: float, seed: int, num_steps: int) -> dict[str, Any]:
    """One run of the demo's configuration: held-out losses by step."""
    from apr.jobs.demo import DemoParts, demo_config
    from apr.jobs.pretrain import pretrain

    parts = DemoParts(root / "data")
    run_dir = root / f"{optimizer}-{rate}-{seed}"
    config = demo_config(root / "data", num_steps=num_steps, seed=seed).model_copy(
        update={
            "run_dir": run_dir,
            "optimizer": optimizer,
            "learning_rate": rate,
            "eval_every": max(1, num_steps // 6),
            "checkpoint_every": num_steps,
            "sample_prompts": (),
            "waive": {"preflight.token-budget": "few", "preflight.split-certificate": "made here"},
        }
    )
    assert config.tokenizer == parts.tokenizer
    pretrain(config)
    lines = [json.loads(line) for line in (run_dir / "steps.jsonl").read_text().splitlines()]
    return {
        "optimizer": optimizer,
        "rate": rate,
        "seed": seed,
        "val": [(line["step"], line["loss_nats"]) for line in lines if line["kind"] == "val"],
    }


def compare_times(rounds: int) -> None:
    """Eager fp32 steps of both in turn: the median ratio of whole steps and of updates alone."""
    import torch

    from apr.architecture import preset
    from apr.bench.reference import REFERENCE
    from apr.train.allocator import keep_freed_memory

    keep_freed_memory()
    for name, shape, batch_size in (
        ("demo, 8 x 256", preset("demo", tokenizer_vocab_size=4096), 8),
        ("reference, 16 x 256", REFERENCE, 16),
    ):
        sides = {each: timed_side(shape, each, batch_size) for each in OPTIMIZERS}
        taken = [{each: step() for each, step in sides.items()} for _ in range(rounds)][2:]
        for part, what in enumerate(("backward pass and update", "update alone")):
            medians = {e: statistics.median(r[e][part] for r in taken) for e in OPTIMIZERS}
            ratio = statistics.median(r["muon"][part] / r["adamw"][part] for r in taken)
            print(
                f"{name:<20} {what:<25} adamw {1e3 * medians['adamw']:8.1f} ms  "
                f"muon {1e3 * medians['muon']:8.1f} ms  ratio {ratio:.2f}"
            )
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")


def timed_side(
    shape: Architecture, optimizer_name: str, batch_size: int
) -> Callable[[], tuple[float, float]]:
    """A function that takes one step and says its seconds, and those of its update."""
    import numpy as np

    from apr.model.init import initialize
    from apr.model.transformer import Transformer
    from apr.train.batches import Batch
    from apr.train.loss import summed_loss
    from apr.train.optimizer import build_optimizer, set_learning_rate
    from apr.train.resolved_config import resolve_config
    from apr.train.step import accumulate

    unused = {name: Path("unused") for name in ("dataset", "tokenizer", "run_dir")}
    model = Transformer(shape)
    initialize(model, seed=0)
    optimizer = build_optimizer(model, resolve_config({**unused, "optimizer": optimizer_name}))
    set_learning_rate(optimizer, 1e-4)
    ids = np.random.default_rng(0).integers(shape.vocab_size, size=(batch_size, 256))
    batch = Batch(ids, ids, np.zeros_like(ids), tuple(range(batch_size)))

    def step() -> tuple[float, float]:
        started_s = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        accumulate(model, [batch], num_tokens=ids.size, document_mask=True, summed_loss=summed_loss)
        before_s = time.perf_counter()
        optimizer.step()
        ended_s = time.perf_counter()
        return ended_s - started_s, ended_s - before_s

    return step


if __name__ == "__main__":
    main()
