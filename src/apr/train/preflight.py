"""The checks on files that a run must pass before a weight exists.

Each walks one link of the identity chain: tokenizer, shards, held-out set, budget. Checks that
need a model are `train.init_loss_gate` and `train.gradients_gate`.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from apr.shards.reader import ShardReader
from apr.train.batches import TokenRows
from apr.train.config import TrainConfig
from apr.train.data_gate import check_degenerate
from apr.train.gates import Finding, Gate, judge, worst
from apr.train.inputs import Inputs
from apr.train.sources import short_names
from apr.train.split_gate import check_split_certificate
from apr.train.token_budget_gate import check_token_budget
from apr.train.val_size_gate import check_val_size
from apr.units import format_count

_SCAN_TOKENS = 1 << 24


def check_files(config: TrainConfig, inputs: Inputs) -> list[Gate]:
    """Every gate that needs no model, in the order of the identity chain."""
    return [
        judge("preflight.tokenizer-fingerprint", lambda: check_tokenizer(inputs)),
        judge("preflight.vocab-size", lambda: check_vocab_size(inputs)),
        judge("preflight.id-range", lambda: check_id_range(inputs)),
        judge("preflight.val-empty", lambda: check_val_empty(config, inputs)),
        judge("preflight.val-size", lambda: check_resolution(config, inputs)),
        judge("preflight.val-overlap", lambda: check_val_overlap(inputs)),
        judge("preflight.split-certificate", lambda: check_split(inputs)),
        judge("preflight.token-budget", lambda: check_token_budget(config, inputs)),
        judge("preflight.data-degenerate", lambda: check_data(inputs)),
    ]


def check_tokenizer(inputs: Inputs) -> Finding:
    """The given tokenizer made the shards and the initial model's ids, all of them alike."""
    given, init = inputs.tokenizer.fingerprint, inputs.init
    names = short_names([reader.directory for reader in inputs.shards])
    named = list(zip(names, inputs.shards, strict=True))
    made_with = [(name, reader.manifest.tokenizer_fingerprint) for name, reader in named]
    if init is not None and init.tokenizer is not None:
        made_with.append((init.path.name, init.tokenizer.fingerprint))
    foreign = [pair for pair in made_with if pair[1] != given]
    unknown = [_describe_repair(name, reader) for name, reader in named if reader.manifest.repaired]
    if init is not None and init.tokenizer is None:
        unknown.append(f"{init.path.name}: {init.tokenizer_reason}")
    if unknown and not foreign:
        return Finding(
            "UNKNOWN",
            "; ".join(unknown),
            f"{given[:12]}, the given tokenizer, on record since the encoding or the import",
            "encode the corpus again, add the tokenizer to the model (apr stamp --tokenizer DIR), "
            "or --waive preflight.tokenizer-fingerprint=REASON",
        )
    return Finding(
        "FAIL" if foreign else "PASS",
        "; ".join(f"{name} {fingerprint[:12]}" for name, fingerprint in foreign or made_with),
        f"{given[:12]}, the given tokenizer",
        "encode the corpus again with this tokenizer, or pass the one that made the shards and "
        "that the model has learned",
    )


def check_vocab_size(inputs: Inputs) -> Finding:
    """From scratch, the model has exactly one row per token id; an initial one may have spare."""
    entries, rows = inputs.tokenizer.vocab_size, inputs.architecture.vocab_size
    found = f"{entries} tokenizer entries"
    if inputs.init is not None:
        return Finding(
            "PASS" if entries <= rows else "FAIL",
            found,
            f"at most {rows}, the rows of the initial model",
            "use the tokenizer of the initial model",
            upstream_id="FALSIFY-APR-PRETRAIN-ARCH-0" + ("09" if entries <= rows else "10"),
        )
    return Finding(
        "PASS" if entries == rows else "FAIL",
        found,
        f"{rows}, the model's rows",
        f"choose another --arch, or pass --vocab-size {entries}",
    )


def check_id_range(inputs: Inputs) -> Finding:
    """Every id in the shards has a row in the embedding; read, not taken from the manifest."""
    readers = inputs.shards
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


def check_val_empty(config: TrainConfig, inputs: Inputs) -> Finding:
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


def check_resolution(config: TrainConfig, inputs: Inputs) -> Finding:
    """The held-out set can show differences as small as it is asked to."""
    return check_val_size(inputs.data, resolution_nats=config.resolution_nats)


def check_val_overlap(inputs: Inputs) -> Finding:
    """No document stands on both sides, by content hash."""
    held_out = _hashes(inputs.data.val)
    train = np.concatenate([_hashes(rows) for rows in inputs.data.train.sources])
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
    """A certificate says what was checked between each source and the held-out side."""
    findings = [check_split_certificate(train, inputs.val) for train in inputs.train]
    if len(findings) > 1:
        names = short_names([train.directory for train in inputs.train])
        findings = [
            replace(finding, found=f"{name}: {finding.found}")
            for name, finding in zip(names, findings, strict=True)
        ]
    return worst(findings)


def check_data(inputs: Inputs) -> Finding:
    """What is trained on and what is held out is text."""
    return check_degenerate(inputs.shards, inputs.tokenizer)


def _describe_repair(name: str, reader: ShardReader) -> str:
    """What is known of the tokenizer of a directory whose manifest was repaired."""
    repaired = reader.manifest.repaired
    assert repaired is not None
    return (
        f"{name}: assumed in a repair; {repaired.num_same_ids} of "
        f"{repaired.num_compared} documents encode to their ids"
    )


def _are_comparable(inputs: Inputs) -> bool:
    """Whether a document has one hash on both sides, where they meet."""
    sides = [shards.manifest for shards in inputs.shards]
    if any(side.repaired and side.eos_policy == "none" for side in sides):
        return False
    held_out = sides[-1]
    is_mixed = any((side.repaired is None) != (held_out.repaired is None) for side in sides)
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
