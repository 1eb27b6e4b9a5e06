"""A small real corpus as shards: this project's own sources, split, tokenized, encoded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apr.corpus.deduplication.dedup import dedup_corpus
from apr.corpus.reading.jsonl import write_rows
from apr.shards.encode import encode_corpus
from apr.tokenizer.tokenizer import Tokenizer
from apr.tokenizer.train import train_bpe
from apr.train.config import TrainConfig
from apr.train.resolved_config import resolve_config

SOURCES = Path(__file__).resolve().parents[1] / "src" / "apr"
VOCAB_SIZE = 512
_HELD_OUT_CHARACTERS = 2200


@dataclass(frozen=True)
class RunData:
    """Where the parts lie."""

    root: Path

    @property
    def checked(self) -> Path:
        return self.root / "checked"

    @property
    def tokenizer(self) -> Path:
        return self.root / "tokenizer"

    @property
    def train(self) -> Path:
        return self.root / "train"

    @property
    def val(self) -> Path:
        return self.root / "val"

    def options(self, run_dir: Path, **changes: Any) -> dict[str, Any]:
        """A run of a few seconds at most, as `resolve_config` takes it."""
        return {
            "dataset": self.train,
            "val_shard": self.val,
            "tokenizer": self.tokenizer,
            "run_dir": run_dir,
            "arch": "tiny",
            "num_steps": 8,
            "batch_size": 4,
            "seq_length": 32,
            "eval_every": 2,
            "eval_tokens": 512,
            "precision": "fp32",
            "compile": False,
            "stop_at_target": False,
            "device": "cpu",
            "waive": {"preflight.token-budget": "a test"},
        } | changes

    def config(self, run_dir: Path, **changes: Any) -> TrainConfig:
        """The same, resolved."""
        return resolve_config(self.options(run_dir, **changes))

    def flags(self, run_dir: Path) -> list[str]:
        """The same run as a command line."""
        return [
            "--dataset",
            str(self.train),
            "--val-shard",
            str(self.val),
            "--tokenizer",
            str(self.tokenizer),
            "--run-dir",
            str(run_dir),
            "--arch",
            "tiny",
            "--num-steps",
            "8",
            "--batch-size",
            "4",
            "--seq-length",
            "32",
            "--eval-every",
            "2",
            "--precision",
            "fp32",
            "--no-compile",
            "--device",
            "cpu",
            "--force-under-provisioned",
        ]


def make_run_data(root: Path, *, sources: Path = SOURCES) -> RunData:
    """The beginnings of eight source files are held out; the split comes first.

    Every run reads all that is held out at least twice, which is most of its time.
    """
    files = sorted(sources.rglob("*.py"))[::2]
    texts = [(file.read_text(encoding="utf-8"), file.name) for file in files]
    texts = sorted({text: name for text, name in texts if text}.items())
    # Of the longest, so that it is as much whichever files there are.
    longest = sorted(texts[::8], key=lambda pair: len(pair[0]), reverse=True)[:8]
    held_out = [(text[:_HELD_OUT_CHARACTERS], name) for text, name in longest]
    train = [pair for number, pair in enumerate(texts) if number % 8 != 0]
    data = RunData(root)
    write_rows(root / "train.jsonl", train)
    write_rows(root / "val.jsonl", held_out)
    found = dedup_corpus(
        [root / "train.jsonl"], held_out=[root / "val.jsonl"], output=data.checked, jaccard=None
    )
    assert found.removals.num_entries == 0
    tokenizer = train_bpe((text for text, _ in train), vocab_size=VOCAB_SIZE)
    tokenizer.save(data.tokenizer)
    encode_corpus(
        [root / "train.jsonl"],
        tokenizer=tokenizer,
        encoder="reference",
        output=data.train,
        shard_tokens=50_000,
        certificate=data.checked / "certificate.json",
    )
    encode_corpus(
        [root / "val.jsonl"],
        tokenizer=tokenizer,
        encoder="reference",
        output=data.val,
        certificate=data.checked / "certificate.json",
    )
    return data


def make_sources(data: RunData, root: Path) -> tuple[Path, Path]:
    """Two parts of the training documents as shards, each certified against the held-out ones."""
    lines = (data.root / "train.jsonl").read_bytes().splitlines(keepends=True)
    for name, part in (("small", lines[:30]), ("large", lines[30:120])):
        corpus = root / name / "documents.jsonl"
        corpus.parent.mkdir(parents=True)
        corpus.write_bytes(b"".join(part))
        dedup_corpus(
            [corpus],
            held_out=[data.root / "val.jsonl"],
            output=root / name / "checked",
            jaccard=None,
        )
        encode_corpus(
            [corpus],
            tokenizer=Tokenizer.load(data.tokenizer),
            encoder="reference",
            output=root / name / "shards",
            shard_tokens=20_000,
            certificate=root / name / "checked" / "certificate.json",
        )
    return root / "small" / "shards", root / "large" / "shards"
