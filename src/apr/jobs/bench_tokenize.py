"""`apr bench tokenize`: how fast text becomes ids on one core, beside Hugging Face's encoder."""

import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from apr.bench.encoding import ONE_THREAD, Encoded, EncoderName, measure_encoder, sample_texts
from apr.bench.peers import require_peers
from apr.jobs.fresh_process import Runner, in_fresh_process
from apr.progress import Report, silent
from apr.tokenizer.choice import choose_encoder
from apr.tokenizer.tokenizer import Tokenizer
from apr.tokenizer.train import train_bpe

PEERS = {"hf": "Hugging Face's tokenizers, the reference"}
_TRAINED_VOCAB_SIZE = 4096
_TRAINED_ON_BYTES = 4_000_000


def bench_tokenize(
    *,
    corpus: Sequence[Path | str] = (),
    tokenizer: Path | None = None,
    eos_token: str | None = None,
    limit_bytes: int = 8_000_000,
    against: Sequence[str] = (),
    num_rounds: int = 1,
    cache_directory: Path | None = None,
    runner: Runner = in_fresh_process,
    progress: Report = silent,
) -> dict[str, Any]:
    """Encode the same texts with the encoder that apr chooses and with its peers, in turn.

    Without a corpus the texts are the interpreter's own sources, and without a tokenizer one is
    learned from them. `cache_directory` is as in `choose_encoder`.

    Refuses: bench.unknown-peer, bench.no-fast-encoder, corpus.*, tokenizer.*.
    Writes: one file in `cache_directory`, and a scratch directory, gone afterwards.
    """
    require_peers(against, PEERS)
    with ExitStack() as stack:
        if tokenizer is None:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="apr-bench-"))
            tokenizer = Path(scratch) / "tokenizer"
            texts = sample_texts(corpus, limit_bytes=_TRAINED_ON_BYTES)
            train_bpe(texts, vocab_size=_TRAINED_VOCAB_SIZE, progress=progress).save(tokenizer)
        choice = choose_encoder(
            Tokenizer.load(tokenizer, eos_token=eos_token),
            cache_directory=cache_directory,
            progress=progress,
        )
        sides: dict[str, EncoderName] = {
            "apr": "fastokens" if choice.name == "fastokens" else "tokenizers"
        }
        sides |= dict.fromkeys(against, "tokenizers")
        rounds = [
            {
                side: runner(
                    measure_encoder,
                    name,
                    tokenizer,
                    tuple(corpus),
                    limit_bytes=limit_bytes,
                    eos_token=eos_token,
                    progress=progress,
                    environment=ONE_THREAD,
                )
                for side, name in sides.items()
            }
            for _ in range(num_rounds)
        ]
    return summarize_encoding(rounds) | {"encoder_proof": choice.proof}


def summarize_encoding(rounds: Sequence[dict[str, Encoded]]) -> dict[str, Any]:
    """Rates of every side, and ratios by round; sides whose ids differ have none."""
    first = rounds[0]
    ours = first["apr"]
    facts: dict[str, Any] = {
        "num_texts": ours.num_texts,
        "text_bytes": ours.text_bytes,
        "num_tokens": ours.num_tokens,
        "sides": {
            side: {
                "encoder": encoded.encoder,
                "version": encoded.version,
                "tokens_per_s": statistics.median(_rate(each[side]) for each in rounds),
                "tokens_per_cpu_s": statistics.median(
                    each[side].num_tokens / each[side].cpu_s for each in rounds
                ),
                "bytes_per_s": statistics.median(
                    each[side].text_bytes / each[side].elapsed_s for each in rounds
                ),
                "same_ids": all(each[side].ids_sha256 == ours.ids_sha256 for each in rounds),
            }
            for side, encoded in first.items()
        },
    }
    facts["ratios"] = {
        side: _ratio(side, rounds) if side_facts["same_ids"] else _no_ratio(side)
        for side, side_facts in facts["sides"].items()
        if side != "apr"
    }
    facts["valid"] = all(side["same_ids"] for side in facts["sides"].values())
    return facts


def _rate(encoded: Encoded) -> float:
    return encoded.num_tokens / encoded.elapsed_s


def _ratio(side: str, rounds: Sequence[dict[str, Encoded]]) -> dict[str, Any]:
    by_round = [_rate(each["apr"]) / _rate(each[side]) for each in rounds]
    return {"median": statistics.median(by_round), "by_round": by_round, "reason": None}


def _no_ratio(side: str) -> dict[str, Any]:
    return {"median": None, "by_round": None, "reason": f"invalid: {side} gave other ids"}
