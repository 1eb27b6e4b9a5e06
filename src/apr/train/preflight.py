"""The checks on files that a run must pass before a weight exists.

Each walks one link of the identity chain: tokenizer, shards, held-out set, budget. Checks that
need a model stand in `train.probes`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apr.architecture import Architecture, preset
from apr.errors import Refusal, UsageRefusal
from apr.progress import Report, silent
from apr.shards.reader import ShardReader
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.batches import DataPlan, TokenRows, plan_data
from apr.train.config import TrainConfig
from apr.train.data_gate import check_degenerate
from apr.train.gates import Finding, Gate, judge
from apr.train.split_gate import check_split_certificate
from apr.train.token_budget import TOKENS_PER_PARAMETER, sufficient_steps, zone
from apr.units import format_count

_SCAN_TOKENS = 1 << 24


@dataclass(frozen=True)
class Inputs:
    """What a run reads, opened and verified."""

    tokenizer: Tokenizer
    train: ShardReader
    val: ShardReader | None
    architecture: Architecture
    data: DataPlan


def open_inputs(config: TrainConfig, *, verify: bool = True, progress: Report = silent) -> Inputs:
    """Open what a run reads; with `verify`, read every byte and compare every hash.

    Refuses: config.unknown-preset, and whatever the tokenizer and the shards refuse.
    """
    tokenizer = Tokenizer.load(config.tokenizer)
    train = ShardReader.open(config.dataset, verify=verify, progress=progress)
    val = None
    if config.val_shard:
        val = open_val_shards(config.val_shard, verify=verify, progress=progress)
    architecture = preset(
        config.arch, tokenizer_vocab_size=tokenizer.vocab_size, vocab_size=config.vocab_size
    )
    require_positions(config, architecture)
    data = plan_data(train, val, sequence_length=config.seq_length, batch_size=config.batch_size)
    return Inputs(tokenizer, train, val, architecture, data)


def require_positions(config: TrainConfig, architecture: Architecture) -> None:
    """Refuse sequences that are longer than the model is meant for.

    Refuses: config.sequence-too-long.
    """
    if config.seq_length > architecture.max_position_embeddings:
        raise UsageRefusal(
            "config.sequence-too-long",
            "--seq-length",
            found=config.seq_length,
            expected=f"at most {architecture.max_position_embeddings}, the model's positions",
            fix="shorten the sequences or choose another --arch",
        )


def open_val_shards(
    directory: Path, *, verify: bool = True, progress: Report = silent
) -> ShardReader:
    """Open held-out shards; what is wrong with them carries upstream's id for it."""
    try:
        return ShardReader.open(directory, verify=verify, progress=progress)
    except Refusal as refusal:
        if refusal.upstream_id is None:
            refusal.upstream_id = "FALSIFY-PRETRAIN-VAL-SHARD-001"
        raise


def check_files(config: TrainConfig, inputs: Inputs) -> list[Gate]:
    """Every gate that needs no model, in the order of the identity chain."""
    return [
        judge("preflight.tokenizer-fingerprint", lambda: check_tokenizer(inputs)),
        judge("preflight.vocab-size", lambda: check_vocab_size(inputs)),
        judge("preflight.id-range", lambda: check_id_range(inputs)),
        judge("preflight.val-empty", lambda: check_val_size(config, inputs)),
        judge("preflight.val-overlap", lambda: check_val_overlap(inputs)),
        judge("preflight.split-certificate", lambda: check_split(inputs)),
        judge("preflight.token-budget", lambda: check_token_budget(config, inputs)),
        judge("preflight.data-degenerate", lambda: check_data(inputs)),
    ]


def check_tokenizer(inputs: Inputs) -> Finding:
    """The given tokenizer made the shards, training and held-out alike."""
    given = inputs.tokenizer.fingerprint
    readers = [inputs.train] + ([inputs.val] if inputs.val else [])
    foreign = [r for r in readers if r.manifest.tokenizer_fingerprint != given]
    assumed = [_describe_repair(reader) for reader in readers if reader.manifest.repaired]
    if assumed and not foreign:
        return Finding(
            "UNKNOWN",
            "; ".join(assumed),
            f"{given[:12]}, the given tokenizer, on record since the encoding",
            "encode the corpus again, or --waive preflight.tokenizer-fingerprint=REASON",
        )
    found = "; ".join(
        f"{reader.directory.name} {reader.manifest.tokenizer_fingerprint[:12]}"
        for reader in foreign or readers
    )
    return Finding(
        "FAIL" if foreign else "PASS",
        found,
        f"{given[:12]}, the given tokenizer",
        "encode the corpus again with this tokenizer, or pass the one that made the shards",
    )


def check_vocab_size(inputs: Inputs) -> Finding:
    """From scratch, the model has exactly one row per token id."""
    entries, rows = inputs.tokenizer.vocab_size, inputs.architecture.vocab_size
    return Finding(
        "PASS" if entries == rows else "FAIL",
        f"{entries} tokenizer entries",
        f"{rows}, the model's rows",
        f"choose another --arch, or pass --vocab-size {entries}",
    )


def check_id_range(inputs: Inputs) -> Finding:
    """Every id in the shards has a row in the embedding; read, not taken from the manifest."""
    readers = [inputs.train] + ([inputs.val] if inputs.val else [])
    num_tokens = sum(reader.num_tokens for reader in readers)
    if num_tokens == 0:
        return Finding("UNKNOWN", "no token to compare", "at least one", "encode a corpus")
    largest = max(_largest_id(reader) for reader in readers if reader.num_tokens)
    rows = inputs.architecture.vocab_size
    return Finding(
        "PASS" if largest < rows else "FAIL",
        f"largest id {largest} in {format_count(num_tokens)} tokens",
        f"below {rows}",
        "encode the corpus with the model's tokenizer",
    )


def check_val_size(config: TrainConfig, inputs: Inputs) -> Finding:
    """The held-out set fills at least one batch."""
    rows = inputs.data.val
    tokens = rows.stop - rows.start
    batches = tokens // (config.batch_size * (config.seq_length + 1))
    shape = f"batches of {config.batch_size} x {config.seq_length + 1} tokens"
    return Finding(
        "PASS" if batches >= 1 else "FAIL",
        f"{batches} {shape} in {rows.shards.directory}",
        "at least 1",
        "encode more held-out text: apr tokenize encode-corpus --corpus ... -o data/val",
    )


def check_val_overlap(inputs: Inputs) -> Finding:
    """No document stands on both sides, by content hash."""
    held_out, train = _hashes(inputs.data.val), _hashes(inputs.data.train)
    if not len(held_out) or not len(train):
        return Finding(
            "UNKNOWN",
            f"{len(train)} training and {len(held_out)} held-out documents to compare",
            "at least one of each",
            "encode both sides",
        )
    shared = np.intersect1d(held_out, train)
    if not len(shared) and not _are_comparable(inputs):
        return Finding(
            "UNKNOWN",
            "a repaired manifest, whose hashes are of decoded text, beside hashes of originals",
            "hashes of the same kind, and known documents, on both sides",
            "encode both sides again, or --waive preflight.val-overlap=REASON",
        )
    return Finding(
        "FAIL" if len(shared) else "PASS",
        f"{len(shared)} contents on both sides ({len(train)} training, {len(held_out)} held-out "
        "documents)",
        "0",
        "split the corpus before encoding and drop documents that stand on both sides",
    )


def check_split(inputs: Inputs) -> Finding:
    """A certificate says what was checked between these two sides."""
    return check_split_certificate(inputs.train, inputs.val)


def check_data(inputs: Inputs) -> Finding:
    """What is trained on and what is held out is text."""
    readers = [inputs.train] + ([inputs.val] if inputs.val else [])
    return check_degenerate(readers, inputs.tokenizer)


def check_token_budget(config: TrainConfig, inputs: Inputs) -> Finding:
    """The planned tokens are at least twenty per parameter.

    Below ten a model degenerates, below twenty it plateaus. Source: Hoffmann et al. 2022.
    """
    parameters = inputs.architecture.num_parameters
    ratio = config.planned_tokens / parameters
    steps = sufficient_steps(parameters, batch_tokens=config.batch_tokens)
    return Finding(
        "PASS" if ratio >= TOKENS_PER_PARAMETER else "FAIL",
        f"{format_count(config.planned_tokens)} tokens for {parameters} parameters: "
        f"{ratio:.2f} per parameter ({zone(ratio)})",
        f"at least {TOKENS_PER_PARAMETER:g} per parameter",
        f"train {steps} steps, choose a smaller --arch, or pass --force-under-provisioned",
    )


def _describe_repair(reader: ShardReader) -> str:
    """What is known of the tokenizer of a directory whose manifest was repaired."""
    repaired = reader.manifest.repaired
    assert repaired is not None
    return (
        f"{reader.directory.name}: assumed in a repair; {repaired.num_same_ids} of "
        f"{repaired.num_compared} documents encode to their ids"
    )


def _are_comparable(inputs: Inputs) -> bool:
    """Whether a document has one hash on both sides, where they meet."""
    sides = [inputs.train.manifest, inputs.val.manifest if inputs.val else inputs.train.manifest]
    if any(side.repaired and side.eos_policy == "none" for side in sides):
        return False
    is_mixed = (sides[0].repaired is None) != (sides[1].repaired is None)
    return not is_mixed or inputs.tokenizer.definition.normalizer is None


def _largest_id(reader: ShardReader) -> int:
    return max(
        int(reader.read(at, min(at + _SCAN_TOKENS, reader.num_tokens)).max())
        for at in range(0, reader.num_tokens, _SCAN_TOKENS)
    )


def _hashes(rows: TokenRows) -> NDArray[np.void]:
    ends = rows.shards.document_ends
    first = int(np.searchsorted(ends, rows.start, side="right"))
    last = int(np.searchsorted(ends, rows.stop, side="left")) + 1
    hashes = np.ascontiguousarray(rows.shards.document_hashes[first:last])
    return hashes.view("V16").ravel()
