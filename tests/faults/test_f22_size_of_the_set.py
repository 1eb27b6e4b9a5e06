"""F22: a held-out set that is too small for what it is asked to show.

`preflight.val-size` knows no model: the surprisal of single tokens by their frequency in the
training text, row by row, stands in for its loss.
"""

import math
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.run_data import RunData
from tests.shard_files import encode
from tests.tokenizer_files import tokenizer

from apr.errors import Refusal, UsageRefusal
from apr.jobs.baselines import unigram_bits_per_byte
from apr.jobs.pretrain import preflight, pretrain
from apr.shards.reader import ShardReader
from apr.train.batches import TokenRows
from apr.train.data_plan import DataPlan
from apr.train.gates import Finding
from apr.train.mixture import mix
from apr.train.unigram import count_ids, row_surprisals, spread, surprisals_nats
from apr.train.val_size_gate import check_val_size

LENGTH = 16
SMALL = tokenizer()


def texts(count: int, *, seed: int) -> list[str]:
    """Documents of plain words, no two alike."""
    chance = random.Random(seed)
    words = ["def", "return", "value", "for", "number", "in", "range", "xylophone", "0", "==", "\n"]
    return [" ".join(chance.choices(words, k=40)) for _ in range(count)]


def rows_of(folder: Path, name: str, documents: list[str], length: int = LENGTH) -> TokenRows:
    directory, _ = encode(folder, documents, name=name)
    shards = ShardReader.open(directory)
    return TokenRows(shards, 0, shards.num_tokens, length)


def plan(folder: Path, documents: list[str], length: int = LENGTH) -> DataPlan:
    train = rows_of(folder, "train", texts(200, seed=1), length)
    return DataPlan(mix([train], [None]), rows_of(folder, "val", documents, length), "given")


def twice_the_error(found: Finding) -> float:
    return float(found.found.split()[0])


def missing_tokens(found: Finding) -> float:
    told = found.fix.split("about ")[1].split(" ")[0]
    return float(told[:-1]) * 1000 if told.endswith("K") else float(told)


def test_a_set_is_large_enough_or_says_how_much_more_would_be(tmp_path: Path) -> None:
    large = plan(tmp_path, texts(60, seed=2))
    found = check_val_size(large, resolution_nats=0.1)
    assert found.verdict == "PASS", found
    assert "twice the standard error" in found.found
    twice = twice_the_error(found)
    # The same set is too small once more is asked of it, on either side of what it has.
    assert check_val_size(large, resolution_nats=twice * 1.01).verdict == "PASS"
    strict = check_val_size(large, resolution_nats=twice * 0.99)
    assert strict.verdict == "FAIL"
    half = check_val_size(large, resolution_nats=twice / 2)
    # Half the error takes four times the text, three times as much on top.
    wanted = 3 * large.val.num_targets
    assert missing_tokens(half) == pytest.approx(wanted, rel=0.02)


def test_as_much_more_text_as_was_said_is_enough(tmp_path: Path) -> None:
    few = plan(tmp_path, texts(20, seed=2))
    resolution_nats = twice_the_error(check_val_size(few, resolution_nats=9.0)) / 2
    before = check_val_size(few, resolution_nats=resolution_nats)
    assert before.verdict == "FAIL"
    per_document = few.val.num_targets / 20
    # A third on top of what was said, because another draw has another spread.
    count = 20 + math.ceil(4 / 3 * missing_tokens(before) / per_document)
    (tmp_path / "more").mkdir()
    more = plan(tmp_path / "more", texts(count, seed=2))
    assert check_val_size(more, resolution_nats=resolution_nats).verdict == "PASS"


def test_the_error_is_that_of_the_mean_by_hand(tmp_path: Path) -> None:
    data = plan(tmp_path, texts(12, seed=3))
    train, val = data.train.sources[0].shards, data.val.shards
    counts = np.bincount(train.read(0, train.num_tokens), minlength=SMALL.vocab_size) + 1.0
    losses = -np.log(counts / counts.sum())
    ids = val.read(0, val.num_tokens)[1:]
    rows = [losses[ids[at : at + LENGTH]] for at in range(0, len(ids), LENGTH)]
    mean = sum(row.sum() for row in rows) / len(ids)
    squares = sum((row.sum() - mean * len(row)) ** 2 for row in rows)
    error = math.sqrt(squares * len(rows) / (len(rows) - 1)) / len(ids)
    found = check_val_size(data, resolution_nats=9.0).found
    assert found.startswith(f"{2 * error:.4f} nats")
    assert f"({mean:.3f} nats) over {len(rows)} rows" in found


@pytest.mark.parametrize("length", [4096, 100_000])
def test_one_row_has_no_spread_and_is_unknown(length: int, tmp_path: Path) -> None:
    found = check_val_size(plan(tmp_path, texts(4, seed=2), length), resolution_nats=0.1)
    assert found.verdict == "UNKNOWN"
    assert "1 held-out rows" in found.found


def test_one_token_again_and_again_is_unknown_not_exact(tmp_path: Path) -> None:
    """Its standard error is zero, which one-sided is below everything."""
    ids = SMALL.encode("x" * 8)
    assert len(set(ids.tolist())) == 1
    data = plan(tmp_path, ["x" * 4000])
    constant = TokenRows(data.val.shards, 0, 16 * LENGTH + 1, LENGTH)
    found = check_val_size(DataPlan(data.train, constant, "given"), resolution_nats=0.1)
    assert found.verdict == "UNKNOWN"
    assert "no spread" in found.found


def test_a_run_is_refused_by_it_and_can_waive_it(run_data: RunData, tmp_path: Path) -> None:
    config = run_data.config(tmp_path / "run", resolution_nats=1e-4)
    with pytest.raises(Refusal) as refused:
        pretrain(config)
    assert refused.value.id == "preflight.val-size"
    assert "more tokens" in refused.value.fix
    assert not config.run_dir.exists()
    waive = {"preflight.val-size": "a test", "preflight.token-budget": "a test"}
    waived = preflight(run_data.config(tmp_path / "run", resolution_nats=1e-4, waive=waive))
    assert waived.may_start
    assert preflight(run_data.config(tmp_path / "run")).may_start


def test_a_margin_in_standard_errors_needs_two_rows(tmp_path: Path, run_data: RunData) -> None:
    few = rows_of(tmp_path, "few", texts(1, seed=1)).shards.directory
    waive = {
        f"preflight.{name}": "a test"
        for name in (
            "token-budget", "val-size", "val-empty", "tokenizer-fingerprint", "split-certificate",
            "data-degenerate", "val-overlap",
        )
    }  # fmt: skip
    options: dict[str, Any] = {
        "val_shard": few,
        "waive": waive,
        "seq_length": 256,
        "eval_tokens": None,
    }
    with pytest.raises(UsageRefusal) as refused:
        preflight(run_data.config(tmp_path / "run", min_delta=1.0, **options))
    assert refused.value.id == "config.min-delta-unmeasurable"
    assert preflight(run_data.config(tmp_path / "run", min_delta=0.0, **options)).gates


def test_a_part_of_a_large_set_tells_nearly_the_same(tmp_path: Path) -> None:
    data = plan(tmp_path, texts(300, seed=2))
    val, ids = data.val, SMALL.vocab_size
    losses = surprisals_nats(
        count_ids(data.train.sources[0].shards, 0, data.train.sources[0].stop, num_ids=ids)
    )
    whole, part = row_surprisals(val, losses), row_surprisals(val, losses, most_tokens=8000)
    assert whole.total_tokens == val.num_targets
    assert 0.7 < len(part.nats) * LENGTH / 8000 <= 1.0
    scaled = (part.standard_error_nats or 0) * math.sqrt(len(part.nats) / len(whole.nats))
    assert scaled == pytest.approx(whole.standard_error_nats, rel=0.15)


@pytest.mark.parametrize("total", [1, 7, 1000, 10**12])
@pytest.mark.parametrize("most", [None, 2, 50, 10**6])
def test_ranges_lie_within_and_never_overlap(total: int, most: int | None) -> None:
    if most is None and total > 10**6:
        return
    ranges = spread(total, most=most, piece=1000)
    assert ranges[0][0] == 0
    assert all(start < stop for start, stop in ranges)
    assert all(before[1] <= after[0] for before, after in pairwise(ranges))
    assert ranges[-1][1] == total
    size = sum(stop - start for start, stop in ranges)
    assert size == total if most is None or total <= most else most / 2 < size <= most


def test_ids_beyond_the_vocabulary_are_refused_not_counted(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "train", texts(2, seed=1))
    with pytest.raises(Refusal) as refused:
        count_ids(rows.shards, 0, rows.stop, num_ids=10)
    assert refused.value.id == "shards.id-range"


def test_the_yardstick_of_the_demo_is_the_same_mean(tmp_path: Path) -> None:
    data = plan(tmp_path, texts(12, seed=3))
    train, val = data.train.sources[0].shards, data.val.shards
    losses = surprisals_nats(count_ids(train, 0, train.num_tokens, num_ids=SMALL.vocab_size))
    rows = row_surprisals(data.val, losses)
    expected = rows.nats.sum() / math.log(2) / val.manifest.text_bytes
    assert unigram_bits_per_byte(train, val) == pytest.approx(expected)
