"""The checks on files that a run must pass before a weight exists.

Each walks one link of the identity chain: tokenizer, shards, held-out set, budget. Checks that
need a model are `train.init_loss_gate` and `train.gradients_gate`.
"""

from apr.shards.reader import ShardReader
from apr.train.config import TrainConfig
from apr.train.copies import documents_of_rows
from apr.train.data_gate import check_degenerate
from apr.train.gates import Finding, Gate, judge
from apr.train.held_out_gate import (
    are_comparable,
    check_split,
    check_val_empty,
    check_val_overlap,
)
from apr.train.inputs import Inputs
from apr.train.token_budget_gate import check_token_budget
from apr.train.tokenizer_gate import check_tokenizer, check_vocab_size
from apr.train.val_size_gate import check_val_size
from apr.units import format_count

_SCAN_TOKENS = 1 << 24


def check_files(config: TrainConfig, inputs: Inputs) -> list[Gate]:
    """Every gate that needs no model, in the order of the identity chain."""
    tokenizer, shards, init = inputs.tokenizer, inputs.shards, inputs.init
    held_out, val = inputs.data.val, inputs.data.val.shards
    return [
        judge("preflight.tokenizer-fingerprint", lambda: check_tokenizer(tokenizer, shards, init)),
        judge(
            "preflight.vocab-size",
            lambda: check_vocab_size(
                tokenizer.vocab_size, inputs.architecture.vocab_size, is_initial=init is not None
            ),
        ),
        judge("preflight.id-range", lambda: check_id_range(inputs)),
        judge(
            "preflight.val-empty",
            lambda: check_val_empty(config, val.directory, held_out.stop - held_out.start),
        ),
        judge("preflight.val-size", lambda: check_resolution(config, inputs)),
        judge(
            "preflight.val-overlap",
            lambda: check_val_overlap(
                [documents_of_rows(rows).hashes for rows in inputs.data.train.sources],
                documents_of_rows(held_out).hashes,
                are_comparable=are_comparable(shards, tokenizer),
            ),
        ),
        judge("preflight.split-certificate", lambda: check_split(inputs.train, inputs.val)),
        judge("preflight.token-budget", lambda: check_token_budget(config, inputs)),
        judge("preflight.data-degenerate", lambda: check_data(inputs)),
    ]


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


def check_resolution(config: TrainConfig, inputs: Inputs) -> Finding:
    """The held-out set can show differences as small as it is asked to."""
    return check_val_size(inputs.data, resolution_nats=config.resolution_nats)


def check_data(inputs: Inputs) -> Finding:
    """What is trained on and what is held out is text."""
    return check_degenerate(inputs.shards, inputs.tokenizer)


def _largest_id(reader: ShardReader) -> int:
    return max(
        int(reader.read(at, min(at + _SCAN_TOKENS, reader.num_tokens)).max())
        for at in range(0, reader.num_tokens, _SCAN_TOKENS)
    )
