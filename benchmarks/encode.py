"""From a corpus to shards: tokens per CPU-second, beside Hugging Face's encoder and datatrove.

    python benchmarks/encode.py [--tokenizer PATH]... [--megabytes 500] [--rounds 3]
        [--datatrove-python PYTHON] [--json]

The corpus is what is installed on this machine, as .jsonl.zst. Every figure comes from a fresh
process on one pinned core unless it says otherwise, and the sides of a comparison take turns.
Without --tokenizer those of GPT-2 and Qwen2.5 are taken from the optional folder of test data, or
else one with Qwen2's pattern is trained here. datatrove is measured where `make bench` has put it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import zstandard
from corpus_on_this_machine import write_corpus

from apr.bench.encoding import ONE_THREAD, measure_encoder

ROOT = Path(__file__).resolve().parents[1]
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
PUBLISHED = ROOT.parent / "shared" / "data" / "tokenizers"
SAMPLE_MEGABYTES = {"fastokens": 64, "tokenizers": 4}
SMALL_SHARE = 10
DATATROVE_SHARE = 2
EOS = "<|endoftext|>"

DATATROVE = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
corpus, tokenizer, output, eos = sys.argv[1:]
if __name__ == "__main__":
    LocalPipelineExecutor(
        pipeline=[
            JsonlReader(corpus, text_key="content"),
            DocumentTokenizer(output, tokenizer_name_or_path=tokenizer, eos_token=eos),
        ],
        tasks=2, workers=2, logging_dir=output + "-logs",
    ).run()
"""


def main() -> None:
    """Measure every side in turn and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, action="append", default=[])
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--datatrove-python", default=PEERS_PYTHON, type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--encode-only", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.encode_only:
        print(json.dumps(encode_only(*options.encode_only)))
        return
    with tempfile.TemporaryDirectory(prefix="apr-bench-") as name:
        bench = Bench(Path(name), options.megabytes, options.datatrove_python)
        published = [PUBLISHED / name / "tokenizer.json" for name in ("gpt2", "qwen2.5")]
        chosen = options.tokenizer or [path for path in published if path.exists()]
        for tokenizer in chosen or [bench.train_tokenizer()]:
            rounds = [bench.round(tokenizer) for _ in range(options.rounds)]
            report(tokenizer, rounds, as_json=options.json)


class Bench:
    """A corpus, parts of it, and the runs over them."""

    def __init__(self, root: Path, megabytes: int, datatrove_python: Path) -> None:
        self.root = root
        self.corpus = root / "corpus"
        self.datatrove_python = datatrove_python
        num_documents, self.text_bytes = write_corpus(self.corpus, megabytes * 1_000_000)
        print(
            f"corpus: {num_documents} documents, {self.text_bytes / 1e6:.0f} MB of text",
            file=sys.stderr,
        )
        self.small = self.part(SMALL_SHARE)
        self.half = self.part(DATATROVE_SHARE)

    def part(self, share: int) -> Path:
        """One `share`-th of the corpus's files, the one with the longest document among them.

        How much memory a document takes depends on its length, and the whole has this one too.
        """
        directory = self.root / f"corpus-{share}"
        directory.mkdir()
        files = sorted(self.corpus.iterdir())
        longest = max(files, key=longest_row_bytes)
        chosen = [longest, *(file for file in files if file != longest)]
        for file in chosen[: max(1, len(files) // share)]:
            (directory / file.name).hardlink_to(file)
        return directory

    def train_tokenizer(self) -> Path:
        """A tokenizer with the usual pattern, learned from a tenth of the corpus."""
        output = self.root / "tokenizer"
        words = ["train", "--corpus", self.small, "--vocab-size", 32768, "-o", output]
        apr(*words)
        return output

    def round(self, tokenizer: Path) -> dict[str, float]:
        """Every figure once."""
        figures: dict[str, float] = {}
        for name in SAMPLE_MEGABYTES:
            words = [sys.executable, __file__, "--encode-only", name, tokenizer, self.corpus]
            figures[f"{name}_tokens_per_cpu_s"] = json.loads(run(words, cores=1)["stdout"])
        whole = self.encode(self.corpus, tokenizer, num_workers=1)
        small = self.encode(self.small, tokenizer, num_workers=1)
        two = self.encode(self.corpus, tokenizer, num_workers=2)
        figures |= {
            "end_to_end_tokens_per_cpu_s": whole["tokens"] / whole["cpu_s"],
            "one_worker_wall_s": whole["wall_s"],
            "two_workers_wall_s": two["wall_s"],
            "peak_mib": whole["peak_mib"],
            "peak_mib_of_a_tenth": small["peak_mib"],
        }
        if self.datatrove_python.exists():
            figures["half_two_workers_wall_s"] = self.encode(self.half, tokenizer, num_workers=2)[
                "wall_s"
            ]
            figures["half_datatrove_wall_s"] = self.datatrove(tokenizer)
        return figures

    def encode(self, corpus: Path, tokenizer: Path, *, num_workers: int) -> dict[str, float]:
        """One run of the command, on as many cores as workers."""
        output = self.root / "shards"
        words = ["encode-corpus", "--corpus", corpus, "--tokenizer", tokenizer, "-o", output]
        words += ["--num-workers", num_workers, "--eos-token", EOS, "--overwrite", "--json"]
        done = apr(*words, cores=num_workers)
        return done | {"tokens": json.loads(done["stdout"])["total_tokens"]}

    def datatrove(self, tokenizer: Path) -> float:
        """Datatrove's tokenization pipeline with two workers over half of the corpus."""
        file = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
        script = self.root / "datatrove_side.py"
        script.write_text(DATATROVE)
        with tempfile.TemporaryDirectory(dir=self.root) as output:
            words = [self.datatrove_python, script, self.half, file, f"{output}/tokens", EOS]
            return run(words, cores=2, quiet=True)["wall_s"]


def longest_row_bytes(file: Path) -> int:
    """The longest row of one file."""
    with zstandard.open(file, "rt", encoding="utf-8", newline="\n") as rows:
        return max(map(len, rows))


def apr(*words: object, cores: int = 1) -> dict[str, Any]:
    """Run `apr tokenize ...`."""
    return run([sys.executable, "-m", "apr", "tokenize", *words, "--quiet"], cores=cores)


def run(words: list[object], *, cores: int, quiet: bool = False) -> dict[str, Any]:
    """Run a command on the first cores; its output, wall and CPU seconds, peak memory.

    The peak is that of its largest process. What workers share, the loaded encoders, counts in
    each.
    """
    allowed = set(sorted(os.sched_getaffinity(0))[:cores])
    program = (
        "import json, os, resource, subprocess, sys, time; start = time.monotonic(); "
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True); "
        "wall_s = time.monotonic() - start; u = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(json.dumps({'stdout': done.stdout, 'wall_s': wall_s, 'rc': done.returncode, "
        "'cpu_s': u.ru_utime + u.ru_stime, 'peak_mib': u.ru_maxrss / 1024}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if quiet else None,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
        check=True,
    )
    result = json.loads(done.stdout)
    if result["rc"]:
        sys.exit(f"{words} ended with {result['rc']}")
    return result


def encode_only(name: str, tokenizer: str, corpus: str) -> float:
    """Tokens per CPU-second of one encoder: texts in memory, ids dropped, the first pass."""
    # Read by the encoders when they are first called.
    os.environ |= ONE_THREAD
    encoded = measure_encoder(
        "tokenizers" if name == "tokenizers" else "fastokens",
        Path(tokenizer),
        [Path(corpus)],
        limit_bytes=SAMPLE_MEGABYTES[name] * 1_000_000,
        eos_token=EOS,
    )
    return encoded.num_tokens / encoded.cpu_s


def report(tokenizer: Path, rounds: list[dict[str, float]], *, as_json: bool) -> None:
    """Medians over the rounds, and the ratios that are worth quoting."""
    median = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    reference = median["tokenizers_tokens_per_cpu_s"]
    ratios = {
        "encode_only_over_tokenizers": median["fastokens_tokens_per_cpu_s"] / reference,
        "end_to_end_over_tokenizers": median["end_to_end_tokens_per_cpu_s"] / reference,
        "two_workers_over_one": median["one_worker_wall_s"] / median["two_workers_wall_s"],
        "peak_over_peak_of_a_tenth": median["peak_mib"] / median["peak_mib_of_a_tenth"],
    }
    if "half_datatrove_wall_s" in median:
        ratios["datatrove_wall_over_apr_wall"] = (
            median["half_datatrove_wall_s"] / median["half_two_workers_wall_s"]
        )
    if as_json:
        print(json.dumps({"tokenizer": str(tokenizer), "median": median, "ratios": ratios}))
        return
    print(f"{tokenizer}: median of {len(rounds)}")
    for name, value in (median | ratios).items():
        shown = f"{value / 1e6:.2f} M" if name.endswith("cpu_s") else f"{value:.2f}"
        print(f"  {name:32} {shown}")


if __name__ == "__main__":
    main()
