"""What `apr pretrain` would refuse, as far as the descriptions of its inputs tell.

The checks are those of the run itself. One that also reads tokens or weights is only foreseen where
it fails: that it will pass, nobody knows yet.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    as_gate,
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


def foreseen_gates(
    config: TrainConfig, inputs: DescribedInputs, architecture: Architecture
) -> list[Gate]:
    """The gates that can be judged now, waivers applied; none for what was not named."""
    tokenizer, shards, init = inputs.tokenizer, inputs.shards, inputs.init
    gates: list[Gate] = []
    if len(shards) + (tokenizer is not None) + (init is not None) > 1:
        gates.append(
            judge(
                "preflight.tokenizer-fingerprint", lambda: check_tokenizer(tokenizer, shards, init)
            )
        )
    if (entries := inputs.vocab_size) is not None:
        rows, is_initial = architecture.vocab_size, init is not None
        gates.append(
            judge(
                "preflight.vocab-size",
                lambda: check_vocab_size(entries, rows, is_initial=is_initial),
            )
        )
    if inputs.train and inputs.val_documents:
        gates += _against_given(config, inputs, inputs.val_documents)
    elif len(inputs.train) == 1:
        gates += _of_what_is_set_aside(config, inputs)
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


def _against_given(
    config: TrainConfig, inputs: DescribedInputs, val: SourceDocuments
) -> list[Gate]:
    """Held-out shards that were named, against the training documents."""
    directory, train = Path(val.name), inputs.train_documents
    gates = [
        judge("preflight.val-empty", lambda: check_val_empty(config, directory, val.num_tokens))
    ]
    # Behind a repair, the tokenizer decides whether hashes can be compared.
    is_decided = inputs.tokenizer or not any(each.manifest.repaired for each in inputs.shards)
    if is_decided and all(len(each.hashes) for each in (*train, val)):
        hashes = [each.hashes for each in train]
        gates.append(judge("preflight.val-overlap", lambda: _overlap(inputs, hashes, val.hashes)))
    gates.append(
        judge("preflight.split-certificate", lambda: check_split(inputs.train, inputs.val))
    )
    return gates


def _of_what_is_set_aside(config: TrainConfig, inputs: DescribedInputs) -> list[Gate]:
    """The documents that a run would set aside of its only source, if their ends are known."""
    (documents,) = inputs.train_documents
    directory, ends = Path(documents.name), np.cumsum(documents.sizes)
    if not len(ends):
        return []
    try:
        border = reserve(
            directory, ends, sequence_length=config.seq_length, batch_size=config.batch_size
        )
    except Refusal as refusal:
        return [as_gate("preflight.val-empty", finding_of_refusal(refusal))]
    first = int(np.searchsorted(ends, border)) + 1
    train, held_out = [documents.hashes[first:]], documents.hashes[:first]
    return [
        judge("preflight.val-empty", lambda: check_val_empty(config, directory, border)),
        judge("preflight.val-overlap", lambda: _overlap(inputs, train, held_out)),
    ]


def _overlap(
    inputs: DescribedInputs, train: list[NDArray[np.uint8]], held_out: NDArray[np.uint8]
) -> Finding:
    comparable = are_comparable(inputs.shards, inputs.tokenizer)
    return check_val_overlap(train, held_out, are_comparable=comparable)
