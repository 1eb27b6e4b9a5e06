"""A run directory as a finished run leaves it, made without training anything."""

import json
import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def run_record(**changes: Any) -> dict[str, Any]:
    """A complete run.json; `changes` replace top-level keys."""
    shards = {
        "path": "data/train",
        "sha256": SHA256,
        "total_tokens": 3_204_511,
        "total_documents": 2_104,
        "text_bytes": 12_733_120,
    }
    record: dict[str, Any] = {
        "schema": "apr-run-v1",
        "apr_version": "0.1.0",
        "outcome": "budget_exhausted",
        "started_at": "2026-11-20T16:00:00Z",
        "finished_at": "2026-11-20T16:07:42Z",
        "config": {
            "dataset": "data/train", "tokenizer": "data/tokenizer", "run_dir": "runs/demo",
            "val_shard": None, "mode": "from-scratch", "arch": "demo", "vocab_size": None,
            "num_steps": 1000, "batch_size": 16, "seq_length": 256, "grad_accum": 1,
            "learning_rate": 0.0003, "warmup_steps": 100, "weight_decay": 0.1, "adam_beta1": 0.9,
            "adam_beta2": 0.95, "max_grad_norm": 1.0, "document_mask": True, "eval_every": 100,
            "eval_tokens": 100_000, "target_val_loss": 3.0, "stop_at_target": True, "patience": 5,
            "min_delta": 0.0, "keep": 2, "seed": 42, "device": "auto", "precision": "fp32",
            "compile": False, "sample_prompts": ["def ", "class "],
            "waive": {"preflight.token-budget": "a smoke run"},
        },
        "inputs": {
            "tokenizer": {"path": "data/tokenizer", "sha256": SHA256, "fingerprint": SHA256},
            "train": [shards],
            "val": [shards | {"path": f"data/{HOSTILE}", "total_tokens": 131_072}],
            "init": None,
        },
        "architecture": {
            "model_type": "llama", "vocab_size": 4096, "hidden_size": 192,
            "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 6,
            "num_key_value_heads": 3, "head_dim": 32, "max_position_embeddings": 2048,
            "rope_theta": 10_000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
            "num_parameters": 2_410_176,
        },
        "gates": [
            _gate("tokenizer-fingerprint", found="9f86d081", expected="9f86d081"),
            _gate("vocab-size", upstream_id="GATE-ARCH-370M-011", found="4096 rows, 4096 ids",
                  expected="rows >= ids"),
            _gate("id-range", found="largest id 4095", expected="at most 4095"),
            _gate("val-empty", upstream_id="FALSIFY-PRETRAIN-VAL-SHARD-003", found="32 batches",
                  expected="at least 1"),
            _gate("val-overlap", found="0 shared documents of 2,104", expected="0"),
            _gate("split-certificate", "UNKNOWN", found="no certificate beside the shards",
                  expected="a certificate naming both sides",
                  waiver={"reason": "reserved from the training shards by this run"}),
            _gate("token-budget", "FAIL", found="1.28 tokens per unique token",
                  expected="at most 1.0", waiver={"reason": f"a smoke run {HOSTILE}"}),
            _gate("init-loss", found="8.331 nats", expected="8.318 +- 0.25 (ln V)"),
            _gate("disk-space", found="81 GiB free", expected="at least 0.2 GiB"),
        ],
        "init_loss_nats": 8.331,
        "val": {
            "source": "reserved", "best_loss_nats": 3.412, "last_loss_nats": 3.431,
            "best_step": 900, "bits_per_byte": 1.537, "num_tokens": 131_072,
            "text_bytes": 419_778, "set_sha256": SHA256,
        },
        "baselines": {"unigram_bits_per_byte": 2.77, "gzip_bits_per_byte": 1.92},
        "tokens_seen": 4_096_000,
        "unique_tokens": 3_204_511,
        "epochs_over_data": 1.278,
        "throughput": {
            "tokens_per_s": 9_870.0, "tokens_per_s_end_to_end": 8_866.0, "mfu": None,
            "mfu_reason": "the peak of this device is not known", "data_wait_fraction": 0.004,
            "checkpoint_fraction": 0.021,
        },
        "environment": {"python": "3.11.7", "torch": "2.13.0+cpu", "platform": "Linux x86_64",
                        "device": "cpu, 2 threads", "git_commit": "012dcc9"},
        "samples": [
            {"prompt": "def ", "text": "read_json(path):\n    with open(path) as source:\n"
                                       "        return json.load(source)\n",
             "stop_reason": "end_of_text"},
            {"prompt": "class ", "text": f"Node:\n\t# {HOSTILE}\x1b[31m\u202e\x00 & <b>\n"},
        ],
        "resumes": [],
        "model": {"path": "model.apr", "sha256": SHA256},
    }  # fmt: skip
    return record | changes


def _gate(
    name: str,
    verdict: str = "PASS",
    *,
    upstream_id: str | None = None,
    found: str,
    expected: str,
    waiver: dict[str, str] | None = None,
) -> dict[str, Any]:
    return {"id": f"preflight.{name}", "upstream_id": upstream_id, "verdict": verdict,
            "found": found, "expected": expected, "waiver": waiver}  # fmt: skip


def step_lines(num_steps: int = 1000, *, eval_every: int = 100) -> Iterable[dict[str, Any]]:
    """The lines of a plausible steps.jsonl: a falling, noisy loss and a cosine rate."""
    chance = random.Random(7)
    elapsed_s = 4.0
    yield _validation(0, 8.331)
    for step in range(1, num_steps + 1):
        done = step / num_steps
        loss = 3.3 + 5.0 * math.exp(-9 * done) + chance.gauss(0, 0.09)
        rate = 3e-4 * min(1.0, 10 * done) * (0.505 + 0.495 * math.cos(math.pi * done))
        elapsed_s += 0.41 + abs(chance.gauss(0, 0.02)) + (2.4 if step % eval_every == 1 else 0)
        yield {
            "kind": "step", "step": step, "loss_nats": loss,
            "grad_norm": 0.55 + 7 * math.exp(-25 * done) + abs(chance.gauss(0, 0.1)),
            "lr_applied": rate, "tokens": 4096, "elapsed_s": elapsed_s,
        }  # fmt: skip
        if step % eval_every == 0:
            yield _validation(step, 3.4 + 4.9 * math.exp(-9 * done))


def _validation(step: int, loss_nats: float) -> dict[str, Any]:
    return {"kind": "val", "step": step, "loss_nats": loss_nats,
            "bits_per_byte": loss_nats * 0.4504, "num_tokens": 100_000}  # fmt: skip


def write_run(
    run_dir: Path, record: Any = None, lines: Iterable[dict[str, Any]] | None = None
) -> Path:
    """Write a run directory; without arguments a complete one."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "run.json").write_text(json.dumps(run_record() if record is None else record))
    with (run_dir / "steps.jsonl").open("w") as target:
        for line in step_lines() if lines is None else lines:
            target.write(json.dumps(line) + "\n")
    return run_dir
