"""Megabytes of text per second of `apr corpus dedup`, near-duplicates included, on one core.

    python benchmarks/near_duplicates.py [--megabytes 200] [--rounds 3] [--json]

The corpus is what is installed on this machine; a fiftieth of its documents is held out. The whole
command is timed: two readings, sketches, comparisons, removal list and certificate.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from corpus_on_this_machine import write_corpus
from encode import run


def main() -> None:
    """Split once, deduplicate several times, print the median."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="apr-bench-") as name:
        corpus, data = Path(name, "corpus"), Path(name, "data")
        write_corpus(corpus, options.megabytes * 1_000_000)
        apr("split", corpus, "-o", data, "--group", "file", "--val-fraction", 0.02)
        rounds = [dedup(data) for _ in range(options.rounds)]
    median = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    if options.json:
        print(json.dumps({"median": median, "rounds": rounds}))
        return
    print(f"near-duplicates, one core, median of {len(rounds)}")
    print(f"  text                 {median['text_mb']:.0f} MB")
    print(f"  documents removed    {median['num_removed']:.0f}")
    print(f"  rate                 {median['mb_per_s']:.1f} MB/s")
    print(f"  peak memory          {median['peak_mib']:.0f} MiB")


def dedup(data: Path) -> dict[str, float]:
    """One run of the command."""
    words = [data / "train", "--held-out", data / "held-out", "-o", data.parent / "out.jsonl"]
    done = apr("dedup", *words, "--overwrite")
    found = json.loads(done["stdout"])
    text_mb = (
        found["train_before"]["text_bytes"] + found["certified"]["held_out"]["text_bytes"]
    ) / 1e6
    return {
        "text_mb": text_mb,
        "num_removed": found["num_removed"],
        "mb_per_s": text_mb / done["wall_s"],
        "peak_mib": done["peak_mib"],
    }


def apr(*words: object) -> dict:
    """Run `apr corpus ...` on one core."""
    return run([sys.executable, "-m", "apr", "corpus", *words, "--json", "--quiet"], cores=1)


if __name__ == "__main__":
    main()
