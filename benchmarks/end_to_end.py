"""What validations and checkpoints leave of the speed of training: whole runs of `apr pretrain`.

    python benchmarks/end_to_end.py [--rounds 3] [--steps 220] [--json]

One run has validations and checkpoints where `apr pretrain` has them by default, every hundred
updates; the other has none. Both train the model of `apr demo` with 16 x 256 tokens per update on
the same sources of this machine, in turn, in processes of their own. A run's speed is that of all
updates after the twentieth, by its own log, with whatever lies between them; the first twenty
compile. The last update and what follows it are left out of both: every run ends with a validation
and a checkpoint. Quote the ratio.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from corpus_on_this_machine import write_corpus

SKIPPED_STEPS = 20
CORPUS_BYTES = 24_000_000
VOCAB_SIZE = 8192
SHAPE = ("--arch", "demo", "--batch-size", 16, "--seq-length", 256, "--lr", 1e-3)


def main() -> None:
    """Alternate both runs and print speeds and their ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=220, help="of a run; more than 100")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="apr-bench-") as name:
        root = Path(name)
        encode(root)
        rounds = [one_round(root, number, options.steps) for number in range(options.rounds)]
    if options.json:
        print(json.dumps({"rounds": rounds}))
        return
    for side in rounds[0]:
        speed = statistics.median(each[side]["tokens_per_s"] for each in rounds)
        facts = rounds[-1][side]
        print(
            f"{side:<34} {speed:9,.0f} tokens/s   {facts['validations']} validations of "
            f"{facts['eval_tokens'] or 0:,} tokens, {facts['checkpoints']} checkpoints"
        )
    ratios = [each["with"]["tokens_per_s"] / each["without"]["tokens_per_s"] for each in rounds]
    spread = ", ".join(f"{ratio:.3f}" for ratio in ratios)
    print(f"of the speed without: {statistics.median(ratios):.3f}  ({spread})")


def encode(root: Path) -> None:
    """A tokenizer and shards of what is installed here; a run holds some of them out by itself."""
    write_corpus(root / "corpus", CORPUS_BYTES)
    corpus = ("--corpus", root / "corpus")
    apr("tokenize", "train", *corpus, "--vocab-size", VOCAB_SIZE, "-o", root / "tokenizer")
    words = ["tokenize", "encode-corpus", *corpus, "--tokenizer", root / "tokenizer"]
    apr(*words, "-o", root / "shards")


def one_round(root: Path, number: int, num_steps: int) -> dict[str, dict[str, Any]]:
    """Both runs, by turns first."""
    sides: dict[str, list[Any]] = {"with": [], "without": ["--eval-every", num_steps]}
    names = list(sides) if number % 2 == 0 else list(reversed(sides))
    found = {name: measure(root, f"{name}-{number}", num_steps, sides[name]) for name in names}
    return {name: found[name] for name in sides}


def measure(root: Path, name: str, num_steps: int, words: list[Any]) -> dict[str, Any]:
    """One run, and its speed by its log."""
    run_dir = root / "runs" / name
    apr(
        *("pretrain", "--dataset", root / "shards", "--tokenizer", root / "tokenizer"),
        *("--run-dir", run_dir, "--num-steps", num_steps, *SHAPE),
        *("--waive", "preflight.token-budget=a benchmark"),
        *words,
    )
    lines = [json.loads(line) for line in (run_dir / "steps.jsonl").read_text().splitlines()]
    steps = {line["step"]: line for line in lines if line["kind"] == "step"}
    within = range(SKIPPED_STEPS + 1, num_steps)
    elapsed_s = steps[num_steps - 1]["elapsed_s"] - steps[SKIPPED_STEPS]["elapsed_s"]
    evals = [line for line in lines if line["kind"] == "val" and line["step"] in within]
    return {
        "tokens_per_s": sum(steps[step]["tokens"] for step in within) / elapsed_s,
        "validations": len(evals),
        "eval_tokens": evals[0]["num_tokens"] if evals else None,
        "checkpoints": len(evals),
    }


def apr(*words: Any) -> None:
    """One command, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "apr", *map(str, words)], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)


if __name__ == "__main__":
    main()
