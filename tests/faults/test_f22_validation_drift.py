"""F22: a validation that drifts, or is not the whole set.

The held-out set is fixed and identified by a hash, read in full, and every token weighs the same,
so its loss does not depend on the size of a batch. Numbers of two sets are never compared. Ranks
that share a set are in test_f29_ranks.py.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.run_data import RunData
from tests.shard_files import encode
from tests.tokenizer_files import tokenizer
from torch.nn import functional

from apr.architecture import preset
from apr.errors import Interrupted, Refusal
from apr.jobs.pretrain import pretrain
from apr.jobs.reopen import require_same_loss
from apr.jobs.resume import resume
from apr.jobs.sitting import Listener
from apr.model.init import initialize
from apr.model.transformer import Transformer
from apr.model.weights import save_model
from apr.shards.encode import encode_corpus
from apr.shards.reader import ShardReader
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.batches import TokenRows
from apr.train.held_out_file import ROWS_FILE, read_rows
from apr.train.loss import summed_loss
from apr.train.step import SummedLoss
from apr.train.validation import ValidationSet, subset, validate, whole_set

SEQUENCE_LENGTH = 16
TEXTS = tuple(f"def name_{number}():\n    return {number} * {number}\n" * 2 for number in range(9))
SMALL = tokenizer()
# Sums of some hundred terms in fp32, added in another order.
TOLERANCE = 1e-6


def rows_of(
    folder: Path, texts: Sequence[str] = TEXTS, *, length: int = SEQUENCE_LENGTH, **options: Any
) -> TokenRows:
    directory, _ = encode(folder, texts, **options)
    shards = ShardReader.open(directory)
    return TokenRows(shards, 0, shards.num_tokens, length)


def held_out(folder: Path, texts: Sequence[str] = TEXTS, **options: Any) -> ValidationSet:
    return whole_set(rows_of(folder, texts, **options), SMALL)


def small_model() -> Transformer:
    model = Transformer(preset("tiny", tokenizer_vocab_size=SMALL.vocab_size))
    initialize(model, seed=3)
    with torch.no_grad():  # so that tokens differ in their loss, as a trained model's do
        model.get_parameter("model.embed_tokens.weight").mul_(20.0)
    return model


def losses(
    chosen: ValidationSet, sizes: Sequence[int] = (1, 8), loss: SummedLoss = summed_loss
) -> list[float]:
    """The loss of one set, read in batches of each size."""
    model = small_model()
    return [
        validate(model, chosen, batch_size=size, document_mask=True, summed_loss=loss).loss_nats
        for size in sizes
    ]


def loss_by_hand(chosen: ValidationSet) -> float:
    """Mean over all tokens, from the logits, one row at a time, in float64."""
    model, nats = small_model(), list[float]()
    for row in range(chosen.rows.num_rows):
        batch = chosen.rows.batch(np.array([row]), batch_size=1)
        documents = torch.from_numpy(batch.document_numbers_BT)
        logits = model(torch.from_numpy(batch.input_ids_BT), documents_BT=documents)
        targets = torch.from_numpy(batch.target_ids_BT)[0]
        each = functional.cross_entropy(logits[0].double(), targets.clamp(min=0), reduction="none")
        nats += each[targets >= 0].tolist()
    assert len(nats) == chosen.rows.num_targets
    return sum(nats) / len(nats)


def test_every_token_of_the_set_counts_once_in_batches_of_any_size(tmp_path: Path) -> None:
    chosen = held_out(tmp_path)
    rows = chosen.rows
    assert rows.num_rows % 8, "the last batch of eight must be ragged"
    assert rows.num_targets % SEQUENCE_LENGTH, "and its last row short"
    assert chosen.num_tokens == rows.num_targets == rows.shards.num_tokens - 1
    expected = loss_by_hand(chosen)
    for found in losses(chosen, (1, 3, 8, rows.num_rows, 100)):
        assert found == pytest.approx(expected, rel=TOLERANCE)


def test_every_row_of_the_set_is_kept_and_no_row_that_only_fills_a_batch(tmp_path: Path) -> None:
    chosen = held_out(tmp_path)
    options: dict[str, Any] = {"document_mask": True, "summed_loss": summed_loss}
    found = [
        validate(small_model(), chosen, batch_size=size, **options).rows
        for size in (1, 8, chosen.rows.num_rows, 100)
    ]
    for rows in found:
        assert len(rows.nats) == len(rows.num_tokens) == chosen.rows.num_rows
        assert rows.total_tokens == chosen.num_tokens
        assert rows.num_tokens.min() >= 1
        np.testing.assert_allclose(rows.nats, found[0].nats, rtol=100 * TOLERANCE)
        assert rows.standard_error_nats == pytest.approx(found[0].standard_error_nats, rel=1e-4)
    short = chosen.rows.num_targets % SEQUENCE_LENGTH
    assert found[0].num_tokens.tolist() == [SEQUENCE_LENGTH] * (chosen.rows.num_rows - 1) + [short]


def test_a_set_of_one_row_has_a_loss_and_no_standard_error(tmp_path: Path) -> None:
    chosen = held_out(tmp_path, length=4096)
    found = validate(
        small_model(), chosen, batch_size=2, document_mask=True, summed_loss=summed_loss
    )
    assert found.standard_error_facts("best_") == {
        "best_standard_error_nats": None,
        "best_standard_error_nats_reason": "fewer than two rows, which have no spread",
    }
    two = subset(rows_of(tmp_path, name="two"), SMALL, max_tokens=1)
    assert len(two.row_indices) == 2


def mean_of_means(*, num_tokens: int, num_batches: int) -> SummedLoss:
    """As if the mean of each batch were averaged, whatever it counts."""

    def loss(*arguments: Any) -> torch.Tensor:
        num_counted = int((arguments[2] >= 0).sum())
        return summed_loss(*arguments) / num_counted * (num_tokens / num_batches)

    return loss


def test_a_planted_mean_of_means_is_told_apart(tmp_path: Path) -> None:
    chosen = held_out(tmp_path)
    num_batches = -(-chosen.rows.num_rows // 8)
    planted = mean_of_means(num_tokens=chosen.num_tokens, num_batches=num_batches)
    (right,), (wrong,) = losses(chosen, [8]), losses(chosen, [8], planted)
    assert right == pytest.approx(loss_by_hand(chosen), rel=TOLERANCE)
    assert wrong != pytest.approx(right, rel=100 * TOLERANCE)


def test_only_batches_that_count_unequally_tell_a_mean_of_means_apart(tmp_path: Path) -> None:
    """Why the sets of this file are ragged: of full batches both are the same number."""
    rows = rows_of(tmp_path)
    full_rows = np.arange(8, dtype=np.int64)
    even = ValidationSet(rows, full_rows, 8 * SEQUENCE_LENGTH, None, rows.sha256(full_rows))
    planted = mean_of_means(num_tokens=even.num_tokens, num_batches=2)
    assert losses(even, [4], planted) == pytest.approx(losses(even, [4]), rel=TOLERANCE)


def test_a_set_is_known_by_its_order_and_its_content(tmp_path: Path) -> None:
    edited = [*TEXTS[:4], TEXTS[4].replace("4", "5", 1), *TEXTS[5:]]
    others = {
        "another order": list(reversed(TEXTS)),
        "two swapped": [TEXTS[1], TEXTS[0], *TEXTS[2:]],
        "one character": edited,
        "one less": list(TEXTS[:-1]),
        "one twice": [*TEXTS, TEXTS[0]],
        "a border elsewhere": [TEXTS[0] + TEXTS[1], *TEXTS[2:]],
    }
    hashes = {"itself": held_out(tmp_path).sha256}
    for number, (what, texts) in enumerate(others.items()):
        hashes[what] = held_out(tmp_path, texts, name=f"other-{number}").sha256
    hashes["rows of another length"] = held_out(tmp_path, name="longer", length=24).sha256
    assert len(set(hashes.values())) == len(hashes) == 8


def test_the_same_set_has_one_hash_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    here = held_out(tmp_path)
    there = held_out(tmp_path / "elsewhere", shard_tokens=100_000)
    assert there.rows.shards.manifest_sha256 != here.rows.shards.manifest_sha256
    assert (there.sha256, there.num_tokens) == (here.sha256, here.num_tokens)
    assert losses(there) == losses(here)


def test_a_set_shorter_than_asked_is_read_whole_and_says_how_much_it_was(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    whole = whole_set(rows, SMALL)
    for wanted in (rows.num_targets + 1, 100_000):
        asked = subset(rows, SMALL, max_tokens=wanted)
        assert asked.sha256 == whole.sha256
        found = validate(
            small_model(), asked, batch_size=4, document_mask=True, summed_loss=summed_loss
        )
        assert (found.num_tokens, found.set_sha256) == (rows.num_targets, whole.sha256)


def test_a_part_of_the_set_is_fixed_and_is_not_called_the_set(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    first, again = (subset(rows, SMALL, max_tokens=5 * SEQUENCE_LENGTH) for _ in range(2))
    assert first.row_indices.tolist() == again.row_indices.tolist()
    assert first.sha256 == again.sha256 != whole_set(rows, SMALL).sha256
    assert len(set(first.row_indices.tolist())) == 5
    assert first.num_tokens <= 5 * SEQUENCE_LENGTH < rows.num_targets
    one, eight = losses(first)
    assert one == pytest.approx(eight, rel=TOLERANCE)


def test_a_run_writes_the_set_and_its_size_beside_every_loss(
    run_data: RunData, tmp_path: Path
) -> None:
    shards = ShardReader.open(run_data.val)
    plan = run_data.config(tmp_path / "run", eval_tokens=None, num_steps=2)
    record = pretrain(plan)
    rows = TokenRows(shards, 0, shards.num_tokens, plan.seq_length)
    whole = whole_set(rows, Tokenizer.load(run_data.tokenizer))
    assert record["val"]["set_sha256"] == whole.sha256
    assert record["val"]["num_tokens"] == whole.num_tokens == shards.num_tokens - 1
    # As a number: gone on with at another --eval-every, the run must not read another set.
    assert record["config"]["eval_tokens"] == whole.num_tokens
    lines = (tmp_path / "run" / "steps.jsonl").read_text().splitlines()
    validations = [line for line in lines if '"val"' in line]
    assert len(validations) == 2
    assert all(whole.sha256 in line for line in validations)
    errors = [json.loads(line)["standard_error_nats"] for line in validations]
    val = record["val"]
    assert errors == [val["init_standard_error_nats"], val["last_standard_error_nats"]]
    assert 0 < val["best_standard_error_nats"] < 0.1
    kept = tmp_path / "run" / ROWS_FILE
    rows = read_rows(kept, sha256=val["rows"]["sha256"], set_sha256=whole.sha256)
    assert rows.mean_nats == val["best_loss_nats"]
    assert rows.standard_error_nats == val["best_standard_error_nats"]


def test_the_loss_on_one_set_is_not_accepted_for_another(run_data: RunData, tmp_path: Path) -> None:
    """The same texts in another order, so that even the number may be the same."""
    for name, texts in ("one", TEXTS), ("other", list(reversed(TEXTS))):
        encode(tmp_path, texts, name=name)
    model = small_model()
    save_model(tmp_path / "model.apr", model, tokenizer=SMALL, provenance=[])
    measured = {}
    for name in ("one", "other"):
        shards = ShardReader.open(tmp_path / name)
        rows = TokenRows(shards, 0, shards.num_tokens, 32)
        measured[name] = validate(
            model,
            whole_set(rows, SMALL),
            batch_size=4,
            document_mask=True,
            summed_loss=summed_loss,
        )
    config = run_data.config(tmp_path / "run", val_shard=tmp_path / "other")
    nats = measured["other"].loss_nats
    fitting = require_same_loss(
        tmp_path / "model.apr",
        config,
        recorded_nats=nats,
        set_sha256=measured["other"].set_sha256,
    )
    assert fitting.loss_nats == pytest.approx(nats, rel=TOLERANCE)
    with pytest.raises(Refusal) as refused:
        require_same_loss(
            tmp_path / "model.apr",
            config,
            recorded_nats=nats,
            set_sha256=measured["one"].set_sha256,
        )
    assert refused.value.id == "model.loss-differs"
    assert measured["one"].set_sha256[:12] in refused.value.expected


@pytest.mark.parametrize("is_changed", [True, False])
def test_a_run_is_not_continued_on_another_held_out_set(
    run_data: RunData, tmp_path: Path, is_changed: bool
) -> None:
    copy = RunData(tmp_path / "data")
    shutil.copytree(run_data.root, copy.root)
    asked = iter([False] * 3)
    stop = Listener(should_stop=lambda: next(asked, True))
    with pytest.raises(Interrupted):
        pretrain(copy.config(tmp_path / "run"), listener=stop)
    if not is_changed:
        assert resume(tmp_path / "run")["outcome"] == "budget_exhausted"
        return
    lines = (copy.root / "val.jsonl").read_text().splitlines(keepends=True)
    (copy.root / "val.jsonl").write_text("".join(reversed(lines)))
    encode_corpus(
        [copy.root / "val.jsonl"],
        tokenizer=Tokenizer.load(copy.tokenizer),
        encoder="reference",
        output=copy.val,
        overwrite=True,
    )
    with pytest.raises(Refusal) as refused:
        resume(tmp_path / "run")
    assert (refused.value.id, refused.value.where) == ("resume.inputs-changed", "held-out shards")
