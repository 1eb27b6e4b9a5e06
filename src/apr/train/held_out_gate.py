"""preflight.val-empty, val-overlap and split-certificate: what is held out is there, and unseen.

All three are judged from manifests, indexes and certificates, without reading a token.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apr.shards.described import Described
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.config import TrainConfig
from apr.train.gates import Finding, worst
from apr.train.sources import short_names
from apr.train.split_gate import check_split_certificate


def check_val_empty(config: TrainConfig, directory: Path, num_tokens: int) -> Finding:
    """The held-out set fills at least one batch."""
    batches = num_tokens // (config.batch_size * (config.seq_length + 1))
    shape = f"batches of {config.batch_size} x {config.seq_length + 1} tokens"
    return Finding(
        "PASS" if batches >= 1 else "FAIL",
        f"{batches} {shape} in {directory}",
        "at least 1",
        "encode more held-out text: apr tokenize encode-corpus --corpus ... -o data/val",
    )


def check_val_overlap(
    train: Sequence[NDArray[np.uint8]], held_out: NDArray[np.uint8], *, are_comparable: bool
) -> Finding:
    """No document stands on both sides, by content hash.

    Shapes: hashes [N, 16] of each source and of the held-out side.
    """
    train_hashes, held_out_hashes = np.concatenate([_keys(each) for each in train]), _keys(held_out)
    num_train, num_held_out = len(train_hashes), len(held_out_hashes)
    if not num_held_out or not num_train:
        return Finding(
            "UNKNOWN",
            f"{num_train} training and {num_held_out} held-out documents to compare",
            "at least one of each",
            "encode both sides",
        )
    shared = np.intersect1d(held_out_hashes, train_hashes)
    if not len(shared) and not are_comparable:
        return Finding(
            "UNKNOWN",
            "a repaired manifest, whose hashes are of decoded text, beside hashes of originals",
            "hashes of the same kind, and known documents, on both sides",
            "encode both sides again, or --waive preflight.val-overlap=REASON",
        )
    return Finding(
        "FAIL" if len(shared) else "PASS",
        f"{len(shared)} contents on both sides ({num_train} training, {num_held_out} held-out "
        "documents)",
        "0",
        "split the corpus before encoding and drop documents that stand on both sides",
    )


def are_comparable(shards: Sequence[Described], tokenizer: Tokenizer | None) -> bool:
    """Whether a document has one hash on both sides, where they meet; the held-out side is last.

    The tokenizer decides where one of them was repaired.
    """
    sides = [each.manifest for each in shards]
    if any(side.repaired and side.eos_policy == "none" for side in sides):
        return False
    held_out = sides[-1]
    is_mixed = any((side.repaired is None) != (held_out.repaired is None) for side in sides)
    return not is_mixed or (tokenizer is not None and tokenizer.definition.normalizer is None)


def check_split(train: Sequence[Described], val: Described | None) -> Finding:
    """A certificate says what was checked between each source and the held-out side."""
    findings = [check_split_certificate(each, val) for each in train]
    if len(findings) > 1:
        names = short_names([each.directory for each in train])
        findings = [
            replace(finding, found=f"{name}: {finding.found}")
            for name, finding in zip(names, findings, strict=True)
        ]
    return worst(findings)


def _keys(hashes: NDArray[np.uint8]) -> NDArray[np.void]:
    return np.ascontiguousarray(hashes).view("V16").ravel()
