"""Whether a directory of shards is what its manifest says, read from disk and not believed.

Four questions: are these the bytes that were written, do they count to what the manifest counts,
do they spell the documents that were encoded, and would the reference give those the same ids.
"""

from collections.abc import Iterator
from pathlib import Path

from apr.corpus.identity import documents_sha256
from apr.files import sha256_file
from apr.progress import Report, silent
from apr.shards.layout import index_name
from apr.shards.mapped_shard import damaged
from apr.shards.reader import ShardReader
from apr.shards.tokenizer_of import other_tokenizer, tokenizer_of
from apr.shards.verifying.recount import Recount, recount
from apr.shards.verifying.round_trip import compare_documents, sample_by_content
from apr.shards.verifying.verification import Check, Verification, failed, passed, unknown
from apr.shards.verifying.verify_documents import (
    check_certificate,
    check_encoding,
    check_provenance,
    check_text,
)
from apr.tokenizer.conservation import bytes_per_id
from apr.tokenizer.tokenizer import Tokenizer

DEFAULT_SAMPLE = 1000

# The manifest keeps six decimals.
_ROUNDING = 1e-6


def verify(
    directory: Path,
    *,
    tokenizer_path: Path | None = None,
    sample: int | None = DEFAULT_SAMPLE,
    progress: Report = silent,
) -> Verification:
    """Read every byte of a directory, count it again and compare a sample of documents.

    Without `tokenizer_path` the tokenizer that encode.json names is used, if it is still there.
    `sample` is a number of documents beside the first and last of each shard; None takes all.

    Refuses: what opening a directory refuses, when it cannot be read as shards at all.
    """
    reader = ShardReader.open(directory, verify=False)
    tokenizer = Tokenizer.load(tokenizer_path) if tokenizer_path else tokenizer_of(reader, None)
    counted = recount(reader, progress=progress)
    checks = [
        _check_files(reader),
        _check_hashes(reader, counted),
        _check_ids(reader, counted),
        _check_separators(reader, counted),
        _check_tokenizer(reader, tokenizer),
        _check_statistics(reader, counted, tokenizer),
    ]
    returned = None
    is_readable = counted.largest_id < (tokenizer.vocab_size if tokenizer else 0)
    if tokenizer and is_readable and _is_made_by(reader, tokenizer) and _has_borders(reader):
        chosen = sample_by_content(reader, sample)
        returned = compare_documents(
            reader, tokenizer, chosen, encode_again=True, progress=progress
        )
    checks += [check_text(reader, returned), check_encoding(reader, returned)]
    checks += [check_provenance(reader)]
    if reader.manifest.certificate is not None:
        checks += [check_certificate(reader, reader.manifest.certificate)]
    return Verification(
        directory=directory,
        manifest=reader.manifest,
        manifest_sha256=reader.manifest_sha256,
        checks=tuple(checks),
        num_compared=returned.num_compared if returned else 0,
    )


def _is_made_by(reader: ShardReader, tokenizer: Tokenizer) -> bool:
    return tokenizer.fingerprint == reader.manifest.tokenizer_fingerprint


def _has_borders(reader: ShardReader) -> bool:
    """Whether documents are documents, and not whole shards taken for one."""
    return reader.manifest.repaired is None or reader.manifest.eos_policy != "none"


def _check_files(reader: ShardReader) -> Check:
    manifest = reader.manifest
    return passed(
        "files",
        f"{manifest.shard_count} shards, {manifest.total_tokens} tokens, "
        f"{reader.num_documents} documents with ascending ends",
        "the files and sizes that the manifest names, and no others",
    )


def _check_hashes(reader: ShardReader, counted: Recount) -> Check:
    for path, found, expected in _file_hashes(reader, counted):
        if found != expected:
            return failed(
                "hashes",
                damaged("shards.hash-mismatch", path, f"sha256 {found}", f"sha256 {expected}"),
            )
    found = f"all {2 * reader.manifest.shard_count} files agree"
    return passed("hashes", found, "the sha256 that the manifest holds for each file")


def _file_hashes(reader: ShardReader, counted: Recount) -> Iterator[tuple[Path, str, str]]:
    for shard, found in zip(reader.manifest.shards, counted.shard_sha256, strict=True):
        yield reader.directory / shard.file, found, shard.sha256
        index_path = reader.directory / index_name(shard.file)
        yield index_path, sha256_file(index_path), shard.index_sha256


def _check_ids(reader: ShardReader, counted: Recount) -> Check:
    found, expected = f"largest id {counted.largest_id}", f"below {reader.manifest.vocab_size}"
    if counted.largest_id >= reader.manifest.vocab_size:
        return failed("ids", damaged("shards.id-range", reader.directory, found, expected))
    return passed("ids", found, expected)


def _check_separators(reader: ShardReader, counted: Recount) -> Check:
    manifest = reader.manifest
    # Where a manifest was repaired the borders follow from the separators, which prove nothing.
    num_misplaced = 0 if manifest.repaired else counted.num_misplaced_separators
    found = f"{counted.num_separators} separators, {num_misplaced} misplaced"
    expected = (
        f"{manifest.eos_token_count}, one at the end of each document that eos_policy "
        f"{manifest.eos_policy} ends with one"
    )
    if counted.num_separators != manifest.eos_token_count or num_misplaced:
        refusal = damaged("shards.separators", reader.directory, found, expected)
        return failed("separators", refusal)
    return passed("separators", found, expected)


def _check_tokenizer(reader: ShardReader, tokenizer: Tokenizer | None) -> Check:
    expected = f"fingerprint {reader.manifest.tokenizer_fingerprint}"
    if tokenizer is None:
        return unknown("tokenizer", "none was given, and encode.json leads to none", expected)
    if not _is_made_by(reader, tokenizer):
        return failed("tokenizer", other_tokenizer(reader, tokenizer))
    if reader.manifest.repaired is not None:
        return unknown("tokenizer", "assumed when the manifest was repaired", expected)
    return passed("tokenizer", f"fingerprint {tokenizer.fingerprint}", expected)


def _check_statistics(reader: ShardReader, counted: Recount, tokenizer: Tokenizer | None) -> Check:
    """What the manifest says of its ids; text bytes only where ids tell them exactly."""
    statistics, num_tokens = reader.manifest.statistics, max(1, counted.num_text_tokens)
    pairs: list[tuple[str, float, float]] = [
        ("max_token_id", counted.largest_text_id, statistics.max_token_id),
        ("longest_run", counted.longest_run, statistics.longest_run),
        ("unigram_entropy_bits", counted.entropy_bits, statistics.unigram_entropy_bits),
        ("bytes_per_token", reader.manifest.text_bytes / num_tokens, statistics.bytes_per_token),
    ]
    if tokenizer and _is_made_by(reader, tokenizer):
        definition = tokenizer.definition
        pairs.append(("vocab_size", tokenizer.vocab_size, reader.manifest.vocab_size))
        unk_id = definition.ids.get(definition.unk_token) if definition.unk_token else None
        pairs.append(("unk_rate", counted.count_of(unk_id) / num_tokens, statistics.unk_rate))
        sizes = bytes_per_id(definition)
        if sizes is not None and statistics.num_documents_changed_by_normalizer == 0:
            size = min(len(sizes), len(counted.counts))
            spelled_bytes = int((counted.counts[:size] * sizes[:size]).sum())
            pairs.append(("text_bytes", spelled_bytes, reader.manifest.text_bytes))
    for name, found, recorded in pairs:
        if abs(found - recorded) > _ROUNDING:
            path = reader.directory / "manifest.json"
            refusal = damaged("shards.verify-counts", path, f"{name} {found}", str(recorded))
            return failed("counts", refusal)
    return _check_document_set(reader) or passed(
        "counts",
        f"{counted.num_text_tokens} ids counted again",
        ", ".join([*(name for name, _, _ in pairs), "documents_sha256"]) + " as recorded",
    )


def _check_document_set(reader: ShardReader) -> Check | None:
    found, recorded = documents_sha256(reader.document_hashes), reader.manifest.documents_sha256
    if found == recorded:
        return None
    path = reader.directory / "manifest.json"
    return failed(
        "counts",
        damaged("shards.verify-counts", path, f"documents_sha256 {found}", recorded),
    )
