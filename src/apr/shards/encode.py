"""A corpus becomes a directory of shards: whole, proven, or not at all.

Documents stream through in batches, in the order of the corpus. The directory is built beside
its target, read back with every hash, and only then takes its name.
"""

import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from apr import __version__
from apr.corpus.documents import Document, list_files, read_files
from apr.corpus.drops import Drops
from apr.corpus.tree import printable
from apr.files import (
    atomic_directory,
    require_absent,
    require_apart,
    require_replaceable,
    write_json,
)
from apr.progress import Progress, Report, silent
from apr.shards.layout import document_hash
from apr.shards.manifest import EosPolicy, Manifest, write_manifest
from apr.shards.proof import SpellingProof
from apr.shards.reader import ShardReader
from apr.shards.statistics import Tally
from apr.shards.writer import ShardWriter
from apr.tokenizer.tokenizer import Tokenizer

ENCODE_NAME = "encode.json"

_OUR_FILES = r"shard-\d{5}\.(bin|idx)|(manifest|encode)\.json"
_BATCH_CHARACTERS = 2 << 20


def encode_corpus(
    corpus: Sequence[Path],
    *,
    tokenizer: Tokenizer,
    output: Path,
    shard_tokens: int = 10_000_000,
    content_field: str = "content",
    eos_policy: EosPolicy = "after",
    overwrite: bool = False,
    progress: Report = silent,
) -> Manifest:
    """Encode files and trees of text into `output`.

    A shard ends with the document that brings it to `shard_tokens`.

    Refuses: tokenizer.eos-undeclared, tokenizer.control-id, corpus.* (what cannot be read),
    shards.text-lost, shards.shard-tokens, files.exists, files.foreign-content,
    files.output-overlaps-input, files.io-failed.
    Writes: shard-NNNNN.bin, shard-NNNNN.idx, encode.json, manifest.json.
    """
    started_s, started_at = time.monotonic(), datetime.now(UTC)
    if eos_policy != "none":
        tokenizer.require_eos_token_id()
    require_apart(output, corpus)
    require_absent(output, overwrite=overwrite)
    require_replaceable(output, names=_OUR_FILES, what="shards")
    drops = Drops()
    files = list_files(corpus, drops=drops)
    documents = read_files(files, content_field=content_field, drops=drops)
    corpus_bytes = sum(file.size_bytes for file in files)
    tally, proof = Tally(tokenizer), SpellingProof(tokenizer)
    with atomic_directory(output, overwrite=overwrite) as staged:
        with ShardWriter(
            staged,
            shard_tokens=shard_tokens,
            eos_policy=eos_policy,
            eos_token_id=tokenizer.eos_token_id,
        ) as writer:
            for batch in _batches(documents):
                _encode(batch, tokenizer, writer, tally, proof)
                done_bytes = tally.text_bytes
                total_bytes = max(corpus_bytes, done_bytes)
                progress(Progress("encoding", done_bytes, total_bytes, "bytes"))
            shards = writer.close()
        progress(Progress("encoding", corpus_bytes, corpus_bytes, "bytes"))
        manifest = Manifest(
            tokenizer_fingerprint=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
            eos_policy=eos_policy,
            eos_token=tokenizer.eos_token,
            eos_token_id=tokenizer.eos_token_id,
            eos_token_count=writer.num_separators,
            total_tokens=sum(shard.num_tokens for shard in shards),
            total_documents=writer.num_documents,
            text_bytes=tally.text_bytes,
            shard_count=len(shards),
            shards=shards,
            drops=dict(sorted(drops.counts.items())),
            statistics=tally.statistics(proof.num_changed_by_normalizer),
        )
        elapsed_s = time.monotonic() - started_s
        how = {
            "started_at": started_at.isoformat(timespec="seconds"),
            "elapsed_s": round(elapsed_s, 3),
            "tokens_per_s": round(manifest.total_tokens / elapsed_s),
            "content_field": content_field,
            "shard_tokens": shard_tokens,
            "drop_examples": drops.examples,
            "control_text_examples": tally.control_text_examples,
        }
        write_json(staged / ENCODE_NAME, _where(corpus, tokenizer) | how)
        write_manifest(staged, manifest)
        ShardReader.open(staged, progress=progress)
    return manifest


def _encode(
    batch: list[Document],
    tokenizer: Tokenizer,
    writer: ShardWriter,
    tally: Tally,
    proof: SpellingProof,
) -> None:
    token_ids = tokenizer.encode_batch([document.text for document in batch])
    proof.require(batch, token_ids)
    tally.add(batch, token_ids)
    for document, ids in zip(batch, token_ids, strict=True):
        writer.append(ids, document_hash(document.text))


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    num_characters = 0
    for document in documents:
        batch.append(document)
        num_characters += len(document.text)
        if num_characters >= _BATCH_CHARACTERS:
            yield batch
            batch, num_characters = [], 0
    if batch:
        yield batch


def _where(corpus: Sequence[Path], tokenizer: Tokenizer) -> dict[str, Any]:
    """What the manifest may not hold, because it differs from machine to machine."""
    return {
        "apr_version": __version__,
        "tokenizers_version": tokenizers.__version__,
        "numpy_version": np.__version__,
        "python_version": platform.python_version(),
        "corpus": [printable(path.resolve()) for path in corpus],
        "tokenizer": tokenizer.where,
    }
