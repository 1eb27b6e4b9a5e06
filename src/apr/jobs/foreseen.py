"""What `apr pretrain` would refuse, as far as the descriptions of its inputs tell.

The checks are those of the run itself. One that also reads tokens or weights is only foreseen where
it fails: that it will pass, nobody knows yet.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from apr.architecture import Architecture
from apr.errors import Refusal
from apr.files import require_writable_place
from apr.jobs.described_inputs import DescribedInputs
from apr.train.config import TrainConfig
from apr.train.copies import SourceDocuments
from apr.train.data_gate import check_statistics
from apr.train.data_plan import reserve
from apr.train.gates import (
    UPSTREAM_IDS,
    Finding,
    Gate,
    apply_waivers,
    finding_of_refusal,
    judge,
    require_passed,
)
from apr.train.held_out_gate import (
    are_comparable,
    check_split,
    check_val_empty,
    check_val_overlap,
)
from apr.train.run_record import require_no_run
from apr.train.tokenizer_gate import check_tokenizer, check_vocab_size

_Checks = dict[str, Callable[[], Finding]]


def foreseen_gates(
    config: TrainConfig, inputs: DescribedInputs, architecture: Architecture
) -> list[Gate]:
    """The gates that can be judged now, waivers applied; none for what was not named."""
    tokenizer, shards, init = inputs.tokenizer, inputs.shards, inputs.init
    checks: _Checks = {}
    if len(shards) + (tokenizer is not None) + (init is not None) > 1:
        checks["preflight.tokenizer-fingerprint"] = lambda: check_tokenizer(tokenizer, shards, init)
    if (entries := inputs.vocab_size) is not None:
        checks["preflight.vocab-size"] = lambda: check_vocab_size(
            entries, architecture.vocab_size, is_initial=init is not None
        )
    if inputs.train and inputs.val_documents:
        checks |= _checks_of_given(config, inputs, inputs.val_documents)
    elif len(inputs.train) == 1:
        checks |= _checks_of_reserve(config, inputs)
    gates = [judge(id, check) for id, check in checks.items()]
    if shards:
        text = judge("preflight.data-degenerate", lambda: check_statistics(shards))
        gates += [text] if text.blocks else []
    return apply_waivers(gates, config.waive)


def foreseen_refusal(
    config: TrainConfig, gates: list[Gate], *, unnamed: tuple[str, ...]
) -> Refusal | None:
    """The refusal that `apr pretrain` would end with, by the place of the run or by its inputs."""
    has_place = "run_dir" not in unnamed
    try:
        if has_place:
            require_no_run(config.run_dir)
            require_writable_place(config.run_dir / "run.json")
        require_passed(gates, config.run_dir if has_place else "the planned run")
    except Refusal as refusal:
        return refusal
    return None


def foreseen_ids(
    config: TrainConfig, gates: list[Gate], refusal: Refusal | None, facts: dict[str, Any]
) -> list[str]:
    """Every refusal that is foreseen, in the order of a run: what it takes can be one as well."""
    blocking = {gate.id for gate in gates if gate.blocks}
    costs = {
        "preflight.disk-space": facts["disk"]["verdict"] == "FAIL",
        "preflight.memory": facts["memory"]["verdict"] == "FAIL",
        "preflight.token-budget": not facts["token_budget"]["is_met"],
    }
    blocking |= {id for id, blocks in costs.items() if blocks and id not in config.waive}
    first = [refusal.id] if refusal and refusal.id not in blocking else []
    return first + [id for id in UPSTREAM_IDS if id in blocking]


def _checks_of_given(config: TrainConfig, inputs: DescribedInputs, val: SourceDocuments) -> _Checks:
    """Held-out shards that were named, against the training documents."""
    directory, train = Path(val.name), inputs.train_documents
    checks: _Checks = {
        "preflight.val-empty": lambda: check_val_empty(config, directory, val.num_tokens)
    }
    # Behind a repair, the tokenizer decides whether hashes can be compared.
    is_decided = inputs.tokenizer or not any(each.manifest.repaired for each in inputs.shards)
    if is_decided and all(len(each.hashes) for each in (*train, val)):
        checks["preflight.val-overlap"] = lambda: check_val_overlap(
            [each.hashes for each in train],
            val.hashes,
            are_comparable=are_comparable(inputs.shards, inputs.tokenizer),
        )
    return checks | {"preflight.split-certificate": lambda: check_split(inputs.train, inputs.val)}


def _checks_of_reserve(config: TrainConfig, inputs: DescribedInputs) -> _Checks:
    """The documents that a run would set aside of its only source, if their ends are known."""
    (documents,) = inputs.train_documents
    directory, ends = Path(documents.name), np.cumsum(documents.sizes)
    if not len(ends):
        return {}
    try:
        border = reserve(
            directory, ends, sequence_length=config.seq_length, batch_size=config.batch_size
        )
    except Refusal as refusal:
        found = finding_of_refusal(refusal)
        return {"preflight.val-empty": lambda: found}
    first = int(np.searchsorted(ends, border)) + 1
    return {
        "preflight.val-empty": lambda: check_val_empty(config, directory, border),
        "preflight.val-overlap": lambda: check_val_overlap(
            [documents.hashes[first:]],
            documents.hashes[:first],
            are_comparable=are_comparable(inputs.shards, inputs.tokenizer),
        ),
    }
