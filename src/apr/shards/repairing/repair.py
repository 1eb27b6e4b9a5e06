"""Bare shards of the Rust tool made readable, and no more trusted than they deserve.

Ids, their borders and their statistics can be read from the files; what the text was, which
tokenizer made them and what was left out cannot. The manifest says so field by field, and the
gates before training answer UNKNOWN where they would have to know it. The strongest evidence for
the assumed tokenizer stands beside: how many documents it encodes to the ids that are there.
"""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from apr.corpus.identity import DOCUMENT_HASH_BYTES, documents_sha256
from apr.errors import Refusal
from apr.files import sha256_bytes
from apr.progress import Progress, Report, silent
from apr.shards.layout import TOKEN_DTYPE, Index, index_bytes, shard_name
from apr.shards.manifest import EosPolicy, Manifest, Repaired, ShardFile, Statistics
from apr.shards.mapped_shard import MappedShard
from apr.shards.reader import ShardReader
from apr.shards.repairing.bare import BareShards, list_bare
from apr.shards.repairing.borders import Borders, find_borders
from apr.shards.repairing.repair_doubts import Repair
from apr.shards.repairing.repair_target import RepairTarget
from apr.shards.verifying.recount import Recount, recount
from apr.shards.verifying.round_trip import RoundTrip, compare_documents, sample_by_content
from apr.tokenizer.token_text import TokenText
from apr.tokenizer.tokenizer import Tokenizer

_NUM_COMPARED = 256
# A shard taken for one document is too long to be encoded whole.
_MAX_COMPARED_TOKENS = 1 << 20
_DECIMALS = 6

_UNKNOWN = (
    "tokenizer_fingerprint",
    "text_bytes",
    "documents_sha256",
    "rows_read",
    "drops",
    "quarantined",
    "encoder",
    "statistics.num_documents_changed_by_normalizer",
    "statistics.num_documents_with_control_text",
)
_UNKNOWN_WITHOUT_BORDERS = ("total_documents", "eos_policy")


def repair_manifest(
    directory: Path,
    *,
    tokenizer_path: Path,
    eos_token: str | None = None,
    eos_policy: EosPolicy | None = None,
    into: Path | None = None,
    overwrite: bool = False,
    progress: Report = silent,
) -> Repair:
    """Write indexes and a manifest for bare u32 shards, in place or `into` a new directory.

    The separator is `eos_token`, else what the old manifest names, else what the tokenizer
    declares. The shards themselves are never changed.

    Refuses: as list_bare and find_borders, tokenizer.eos-undeclared, shards.repair-empty,
    files.exists, files.output-overlaps-input, files.foreign-content, files.io-failed.
    Writes: shard-NNNNN.idx, repair.json, manifest.json; in a new directory the shards as well,
    as links to the old ones where the file system can.
    """
    tokenizer = Tokenizer.load(tokenizer_path, eos_token=eos_token)
    bare = list_bare(directory)
    target = RepairTarget.choose(bare, into, overwrite=overwrite)
    borders = find_borders(
        bare,
        vocab_size=tokenizer.vocab_size,
        eos_token_id=_separator_id(bare, tokenizer, eos_token, eos_policy),
        eos_policy=eos_policy,
        progress=progress,
    )
    hashes, text_bytes = _document_hashes(bare, borders, TokenText(tokenizer), progress)
    indexes = [index_bytes(ends, each) for ends, each in zip(borders.ends, hashes, strict=True)]
    bare_manifest = _without_counts(bare, borders, indexes, tokenizer)
    reader = _reader(bare, borders, hashes, bare_manifest)
    counted = recount(reader, progress=progress)
    if not counted.num_text_tokens:
        raise Refusal(
            "shards.repair-empty",
            directory,
            found=f"{counted.num_separators} separators and no other token",
            expected="shards that hold text",
            fix="name the directory that the shards were written to",
        )
    manifest = bare_manifest.model_copy(
        update={
            "text_bytes": text_bytes,
            "shards": _with_sha256(bare_manifest.shards, counted),
            "documents_sha256": documents_sha256(reader.document_hashes),
            "statistics": _statistics(counted, tokenizer, text_bytes),
            "repaired": Repaired(
                unknown=[*_UNKNOWN, *(_UNKNOWN_WITHOUT_BORDERS * (borders.eos_token_id is None))],
                **_evidence(reader, tokenizer, progress),
                empty_files=target.empty_files,
            ),
        }
    )
    manifest_sha256 = target.write(manifest, indexes, tokenizer_where=tokenizer.where)
    return Repair(target.directory, manifest, manifest_sha256, bare.old_manifest)


def _separator_id(
    bare: BareShards, tokenizer: Tokenizer, eos_token: str | None, eos_policy: EosPolicy | None
) -> int | None:
    old = bare.old_manifest
    if eos_policy == "none":
        return None
    if eos_token is None and old is not None and old.eos_token_id is not None:
        return old.eos_token_id
    if eos_token is None and old is not None and old.eos_policy == "none":
        return None
    return tokenizer.require_eos_token_id()


def _document_hashes(
    bare: BareShards, borders: Borders, texts: TokenText, progress: Report
) -> tuple[list[bytes], int]:
    """A hash of each document's decoded text, by shard; and the bytes of all texts."""
    hashes: list[bytes] = []
    text_bytes, done_tokens = 0, 0
    for file, ends in zip(bare.files, borders.ends, strict=True):
        ids = np.memmap(file, dtype=TOKEN_DTYPE, mode="r")
        in_file = bytearray()
        start = 0
        for end in ends.tolist():
            document = np.array(ids[start:end])
            if borders.eos_token_id is not None:
                document = document[document != borders.eos_token_id]
            text = texts.text(document)
            in_file += blake2b(text, digest_size=DOCUMENT_HASH_BYTES).digest()
            text_bytes += len(text)
            start = end
        done_tokens += len(ids)
        hashes.append(bytes(in_file))
        progress(Progress("decoding documents", done_tokens, bare.total_tokens, "tokens"))
    return hashes, text_bytes


def _without_counts(
    bare: BareShards, borders: Borders, indexes: Sequence[bytes], tokenizer: Tokenizer
) -> Manifest:
    """The manifest as far as borders tell; what has to be counted is still zero."""
    shards = [
        ShardFile(
            file=shard_name(shard_index),
            num_tokens=int(ends[-1]),
            num_documents=len(ends),
            size_bytes=int(ends[-1]) * TOKEN_DTYPE.itemsize,
            sha256="0" * 64,
            index_sha256=sha256_bytes(index),
        )
        for shard_index, (ends, index) in enumerate(zip(borders.ends, indexes, strict=True))
    ]
    eos_token_id = borders.eos_token_id
    return Manifest(
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        eos_policy=borders.eos_policy,
        eos_token=None if eos_token_id is None else tokenizer.vocabulary[eos_token_id],
        eos_token_id=eos_token_id,
        eos_token_count=borders.num_separators,
        total_tokens=bare.total_tokens,
        total_documents=borders.num_documents,
        text_bytes=0,
        shard_count=len(shards),
        shards=shards,
        documents_sha256="0" * 64,
        rows_read=borders.num_documents,
        drops={},
        quarantined={},
        statistics=Statistics(
            bytes_per_token=0.0,
            unigram_entropy_bits=0.0,
            longest_run=0,
            unk_rate=0.0,
            max_token_id=0,
            num_documents_changed_by_normalizer=None,
            num_documents_with_control_text=None,
        ),
        encoder=None,
        certificate=None,
    )


def _reader(
    bare: BareShards, borders: Borders, hashes: Sequence[bytes], manifest: Manifest
) -> ShardReader:
    """The shards as they will be read, before anything is written."""
    return ShardReader(
        bare.directory,
        manifest,
        "",
        tokens=[
            MappedShard(file, size_bytes=shard.size_bytes, sha256=None)
            for file, shard in zip(bare.files, manifest.shards, strict=True)
        ],
        indexes=[
            Index(
                int(ends[-1]),
                ends.astype(np.uint64),
                np.frombuffer(each, np.uint8).reshape(-1, DOCUMENT_HASH_BYTES),
            )
            for ends, each in zip(borders.ends, hashes, strict=True)
        ],
    )


def _with_sha256(shards: Sequence[ShardFile], counted: Recount) -> list[ShardFile]:
    return [
        shard.model_copy(update={"sha256": sha256})
        for shard, sha256 in zip(shards, counted.shard_sha256, strict=True)
    ]


def _statistics(counted: Recount, tokenizer: Tokenizer, text_bytes: int) -> Statistics:
    definition, num_tokens = tokenizer.definition, counted.num_text_tokens
    unk_id = definition.ids.get(definition.unk_token) if definition.unk_token else None
    return Statistics(
        bytes_per_token=round(text_bytes / num_tokens, _DECIMALS),
        unigram_entropy_bits=round(counted.entropy_bits, _DECIMALS),
        longest_run=counted.longest_run,
        unk_rate=round(counted.count_of(unk_id) / num_tokens, _DECIMALS),
        max_token_id=counted.largest_text_id,
        num_documents_changed_by_normalizer=None,
        num_documents_with_control_text=None,
    )


def _evidence(reader: ShardReader, tokenizer: Tokenizer, progress: Report) -> dict[str, int]:
    chosen = sample_by_content(reader, _NUM_COMPARED)
    lengths = np.diff(reader.document_ends.astype(np.int64), prepend=0)[chosen]
    returned: RoundTrip = compare_documents(
        reader,
        tokenizer,
        chosen[lengths <= _MAX_COMPARED_TOKENS],
        encode_again=True,
        progress=progress,
    )
    return {"num_compared": returned.num_compared, "num_same_ids": returned.num_same_ids}
