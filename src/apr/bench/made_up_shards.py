"""Shards of random ids, so that a measured step reads its batches as a run does."""

from pathlib import Path

import numpy as np

from apr.corpus.identity import DOCUMENT_HASH_BYTES
from apr.files import sha256_bytes, write_bytes
from apr.shards.layout import TOKEN_DTYPE, index_bytes, index_name, shard_name
from apr.shards.manifest import Manifest, Repaired, ShardFile, Statistics, write_manifest
from apr.shards.reader import ShardReader

# About that of a source file, so that a row holds borders between documents.
_MEAN_DOCUMENT_TOKENS = 700


def write_made_up_shards(
    directory: Path, *, vocab_size: int, num_tokens: int, seed: int = 0
) -> ShardReader:
    """One shard of uniformly random ids in documents of random length, and its reader.

    The manifest is that of shards whose text is unknown.

    Writes: `directory`.
    """
    random = np.random.default_rng(seed)
    ids = random.integers(vocab_size, size=num_tokens, dtype=np.uint32).astype(TOKEN_DTYPE)
    lengths = random.geometric(1 / _MEAN_DOCUMENT_TOKENS, size=num_tokens)
    ends = np.cumsum(lengths)
    ends = np.append(ends[ends < num_tokens], num_tokens)
    data = ids.tobytes()
    index = index_bytes(ends, random.bytes(len(ends) * DOCUMENT_HASH_BYTES))
    file = shard_name(0)
    directory.mkdir()
    write_bytes(directory / file, data)
    write_bytes(directory / index_name(file), index)
    shard = ShardFile(
        file=file,
        num_tokens=num_tokens,
        num_documents=len(ends),
        size_bytes=len(data),
        sha256=sha256_bytes(data),
        index_sha256=sha256_bytes(index),
    )
    write_manifest(directory, _manifest(shard, vocab_size, int(ids.max())))
    return ShardReader.open(directory)


def _manifest(shard: ShardFile, vocab_size: int, max_token_id: int) -> Manifest:
    nothing = sha256_bytes(b"")
    return Manifest(
        tokenizer_fingerprint=nothing,
        vocab_size=vocab_size,
        eos_policy="none",
        eos_token=None,
        eos_token_id=None,
        eos_token_count=0,
        total_tokens=shard.num_tokens,
        total_documents=shard.num_documents,
        text_bytes=0,
        shard_count=1,
        shards=[shard],
        documents_sha256=nothing,
        rows_read=shard.num_documents,
        drops={},
        quarantined={},
        statistics=Statistics(
            bytes_per_token=0.0,
            unigram_entropy_bits=0.0,
            longest_run=0,
            unk_rate=0.0,
            max_token_id=max_token_id,
            num_documents_changed_by_normalizer=None,
            num_documents_with_control_text=None,
        ),
        encoder=None,
        certificate=None,
        repaired=Repaired(unknown=["text"], num_compared=0, num_same_ids=0, empty_files=[]),
    )
