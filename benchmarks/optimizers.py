"""Held-out loss against steps and time per step: AdamW and Muon on the demo's model and data.

    python benchmarks/optimizers.py [--num-steps 300] [--seeds 3] [--lr 2.5e-3 ...] [--json]

Each pair trains the demo's configuration on the interpreter's own sources, in the same order from
the same weights, in turn. Quote differences of one seed, and the ratio of the times of a pair.
"""

import argparse
import json
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

OPTIMIZERS = ("adamw", "muon")


def main() -> None:
    """Prepare the demo's data once, train every pair, print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num-steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, nargs="+", default=[2.5e-3])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
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
    steps = [step for step, _ in found[0]["val"]]
    print("optimizer  rate     seed  " + "  ".join(f"{step:>7}" for step in steps) + "   s/step")
    for run in found:
        losses = "  ".join(f"{loss:7.4f}" for _, loss in run["val"])
        print(
            f"{run['optimizer']:<9}  {run['rate']:<7g}  {run['seed']:>4}  {losses}  "
            f"{run['step_s']:7.3f}"
        )


def prepare(root: Path) -> None:
    """The demo's corpus, tokenizer and shards, by the demo itself."""
    from apr.jobs.demo import demo

    demo(root, num_steps=2)


def train(root: Path, optimizer: str, rate: float, seed: int, num_steps: int) -> dict[str, Any]:
    """One run of the demo's configuration: held-out losses by step, median seconds per step."""
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
    ends = [line["elapsed_s"] for line in lines if line["kind"] == "step"]
    # Validations lie between some steps; the median of the differences does not see them.
    step_s = statistics.median(later - earlier for earlier, later in pairwise(ends))
    return {
        "optimizer": optimizer,
        "rate": rate,
        "seed": seed,
        "val": [(line["step"], line["loss_nats"]) for line in lines if line["kind"] == "val"],
        "step_s": step_s,
    }


if __name__ == "__main__":
    main()
