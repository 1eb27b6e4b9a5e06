"""`apr demo`: the whole main job on the Python sources of the running interpreter.

Nothing here is special to the demo but the choice of corpus and sizes: each hop is the function
behind the command a person would type.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apr.corpus.interpreter import interpreter_documents
from apr.corpus.reading.account import Account
from apr.corpus.reading.documents import Document, read_documents
from apr.corpus.splitting.split import HELD_OUT_NAME, TRAIN_NAME
from apr.errors import Refusal
from apr.files import atomic_directory, require_absent, require_replaceable
from apr.jobs.baselines import gzip_bits_per_byte, unigram_bits_per_byte
from apr.jobs.demo_corpus import write_demo_corpus
from apr.jobs.pretrain import pretrain
from apr.jobs.reopen import require_same_loss
from apr.jobs.run_lock import hold_run
from apr.jobs.sitting import SILENT, Listener
from apr.shards.encode import encode_corpus
from apr.shards.reader import ShardReader
from apr.tokenizer.train import train_bpe
from apr.train.config import TrainConfig
from apr.train.resolved_config import resolve_config
from apr.train.run_record import RunRecord

VOCAB_SIZE = 4096
NUM_STEPS = 2000
MIN_HELD_OUT_DOCUMENTS = 30
MIN_HELD_OUT_TOKENS = 80_000
# Five bytes make a token at the very most; what encoding really gives is checked afterwards.
_MIN_HELD_OUT_BYTES = 5 * MIN_HELD_OUT_TOKENS
_PROMPTS = (
    'def main():\n    """',
    "class Node:\n    def __init__(self, ",
    "import os\n\nfor name in os.listdir(",
)
_OUR_FILES = (
    r"corpus|tokenizer|shards|checkpoints|run\.json|steps\.jsonl|model\.apr|report\.html|\.lock"
)
_WAIVED = "the demo trains for minutes; twenty tokens per parameter would take an hour"


@dataclass(frozen=True)
class DemoParts:
    """Where the demo's parts lie under its directory."""

    root: Path

    @property
    def corpus(self) -> Path:
        """The split corpus with its certificate."""
        return self.root / "corpus"

    @property
    def train_corpus(self) -> Path:
        """Training documents."""
        return self.corpus / TRAIN_NAME

    @property
    def val_corpus(self) -> Path:
        """Held-out documents."""
        return self.corpus / HELD_OUT_NAME

    @property
    def tokenizer(self) -> Path:
        """The tokenizer directory."""
        return self.root / "tokenizer"

    @property
    def train_shards(self) -> Path:
        """Training shards."""
        return self.root / "shards" / "train"

    @property
    def val_shards(self) -> Path:
        """Held-out shards."""
        return self.root / "shards" / "val"


def demo(
    root: Path = Path("runs/demo"),
    *,
    overwrite: bool = False,
    num_steps: int = NUM_STEPS,
    seed: int = 42,
    documents: list[Document] | None = None,
    cache_directory: Path | None = None,
    listener: Listener = SILENT,
) -> dict[str, Any]:
    """Corpus, split, tokenizer, shards, training, proof: one directory, one run record.

    `documents` replaces the interpreter's sources; `cache_directory` is as in `encode_corpus`.

    Refuses: files.exists, files.foreign-content, run.busy, demo.held-out-too-small,
    corpus.interpreter-too-small, model.loss-differs, and every refusal of pretraining. Raises
    Interrupted as `pretrain` does.
    Writes: `root`: corpus/, tokenizer/, shards/ and the run directory's files.
    """
    # What a demo leaves when it is stopped between its data and its first step is made anew.
    overwrite = overwrite or _holds_only_data(root)
    _require_startable(root, overwrite=overwrite)
    config = demo_config(root, num_steps=num_steps, seed=seed)
    with atomic_directory(root, overwrite=overwrite) as staged:
        baselines = _prepare_data(
            DemoParts(staged),
            documents,
            seed=seed,
            cache_directory=cache_directory,
            listener=listener,
        )
    pretrain(config, baselines=baselines, listener=listener)
    record = RunRecord.load(root)
    _prove_in_a_fresh_process(record)
    return record.data


def demo_config(root: Path, *, num_steps: int, seed: int) -> TrainConfig:
    """The demo's training run, as `apr pretrain` would be told."""
    parts = DemoParts(root)
    return resolve_config(
        {
            "dataset": parts.train_shards,
            "val_shard": parts.val_shards,
            "tokenizer": parts.tokenizer,
            "run_dir": root,
            "arch": "demo",
            "num_steps": num_steps,
            "batch_size": 8,
            "seq_length": 256,
            "learning_rate": 2.5e-3,
            "warmup_steps": min(100, num_steps // 10),
            "eval_every": max(1, min(200, num_steps // 2)),
            "eval_tokens": 50_000,
            "stop_at_target": False,
            "patience": max(1, num_steps),
            "seed": seed,
            "sample_prompts": _PROMPTS,
            "waive": {"preflight.token-budget": _WAIVED},
        }
    )


def finished_demo(root: Path) -> dict[str, Any] | None:
    """The record of a demo that has ended, None where none was started.

    A run that was finished by `apr pretrain --resume` gets the demo's last proof here.

    Refuses: demo.another-run, demo.unfinished, model.loss-differs.
    Writes: run.json, when the proof was still missing.
    """
    if not (root / "run.json").is_file():
        return None
    record = RunRecord.load(root)
    if not record.data.get("baselines"):
        raise Refusal(
            "demo.another-run",
            root,
            found="a run that apr demo did not start",
            expected="a demo, or a free path",
            fix="name another directory with -o",
        )
    if record.data["outcome"] != "budget_exhausted":
        raise Refusal(
            "demo.unfinished",
            root,
            found=f"a run whose outcome is {record.data['outcome']}",
            expected="a finished demo, or none",
            fix=f"finish it: apr pretrain --resume {root}; or start over: "
            f"apr demo --overwrite -o {root}",
        )
    if record.data.get("reopened_loss_nats") is None:
        _prove_in_a_fresh_process(record)
    return record.data


def _prove_in_a_fresh_process(record: RunRecord) -> None:
    val = record.data["val"]
    reopened = require_same_loss(
        record.run_dir / "model.apr",
        TrainConfig.model_validate(record.data["config"]),
        recorded_nats=val["best_loss_nats"],
        set_sha256=val["set_sha256"],
    )
    record.data["reopened_loss_nats"] = reopened.loss_nats
    record.write()


def _holds_only_data(root: Path) -> bool:
    return DemoParts(root).val_shards.is_dir() and not (root / "run.json").exists()


def _require_startable(root: Path, *, overwrite: bool) -> None:
    require_absent(root, overwrite=overwrite)
    require_replaceable(root, names=_OUR_FILES, what="a demo")
    if root.exists():
        with hold_run(root):
            pass


def _prepare_data(
    parts: DemoParts,
    documents: list[Document] | None,
    *,
    seed: int,
    cache_directory: Path | None,
    listener: Listener,
) -> dict[str, float]:
    """Write corpus, tokenizer and shards; return the yardsticks. The split comes first."""
    account = Account()
    if documents is None:
        documents = interpreter_documents(drops=account)
    split = write_demo_corpus(
        documents,
        parts.corpus,
        min_documents=MIN_HELD_OUT_DOCUMENTS,
        min_bytes=_MIN_HELD_OUT_BYTES,
        seed=seed,
        account=account,
        progress=listener.progress,
    )
    listener.notify(
        f"corpus: {split.train.num_documents} training and {split.held_out.num_documents} "
        f"held-out documents ({', '.join(split.held_out_groups)}); "
        f"left out: {account.describe()}"
    )
    tokenizer = train_bpe(
        _texts(parts.train_corpus),
        vocab_size=VOCAB_SIZE,
        progress=listener.progress,
    )
    tokenizer.save(parts.tokenizer)
    for corpus, shards in (
        (parts.train_corpus, parts.train_shards),
        (parts.val_corpus, parts.val_shards),
    ):
        encode_corpus(
            [corpus],
            tokenizer=tokenizer,
            output=shards,
            cache_directory=cache_directory,
            progress=listener.progress,
        )
    train, val = ShardReader.open(parts.train_shards), ShardReader.open(parts.val_shards)
    _require_held_out(val)
    return {
        "unigram_bits_per_byte": unigram_bits_per_byte(train, val),
        "gzip_bits_per_byte": gzip_bits_per_byte(_texts(parts.val_corpus)),
    }


def _texts(corpus: Path) -> Iterator[str]:
    return (document.text for document in read_documents([corpus], drops=Account()))


def _require_held_out(val: ShardReader) -> None:
    found = (val.manifest.total_documents, val.num_tokens)
    if found[0] < MIN_HELD_OUT_DOCUMENTS or found[1] < MIN_HELD_OUT_TOKENS:
        raise Refusal(
            "demo.held-out-too-small",
            "held-out part",
            found=f"{found[0]} documents, {found[1]} tokens",
            expected=f"at least {MIN_HELD_OUT_DOCUMENTS} documents and "
            f"{MIN_HELD_OUT_TOKENS} tokens",
            fix="use a Python with its whole standard library",
        )
