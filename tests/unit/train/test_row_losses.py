"""The mean of row losses, its standard error, and what becomes of them on disk."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from apr.errors import DamagedFile, Refusal
from apr.files import sha256_file
from apr.train.held_out_file import read_rows, write_rows
from apr.train.row_losses import RowLosses

SET = "0a" * 32


def rows_of(means: list[float], counts: list[int]) -> RowLosses:
    num_tokens = np.array(counts)
    return RowLosses(np.array(means) * num_tokens, num_tokens)


def test_tokens_weigh_the_same_in_whatever_row_they_are() -> None:
    rows = rows_of([1.0, 4.0], [9, 1])
    assert rows.total_tokens == 10
    assert rows.mean_nats == pytest.approx(1.3)


def test_rows_of_one_length_have_the_standard_error_of_a_mean() -> None:
    means = [2.0, 3.0, 2.5, 4.0, 1.5]
    expected = np.std(means, ddof=1) / np.sqrt(5)
    assert rows_of(means, [64] * 5).standard_error_nats == pytest.approx(expected)
    # Longer rows of the same means are no better known: the rows were drawn, not the tokens.
    assert rows_of(means, [640] * 5).standard_error_nats == pytest.approx(expected)


def test_by_hand_for_rows_of_two_lengths() -> None:
    rows = rows_of([1.0, 2.0, 4.0], [2, 2, 1])
    mean = (2 + 4 + 4) / 5
    residuals = (2 - 2 * mean, 4 - 2 * mean, 4 - mean)
    variance = 3 / 2 * sum(each**2 for each in residuals) / 5**2
    assert rows.standard_error_nats == pytest.approx(variance**0.5)


def test_it_is_what_another_draw_of_rows_changes() -> None:
    """The formula against what it estimates: the spread of the mean over many draws."""
    chance = np.random.default_rng(3)
    drawn, claimed = list[float](), list[float]()
    for _ in range(600):
        counts = chance.integers(10, 100, size=60)
        rows = RowLosses((3 + chance.normal(0, 0.6, 60)) * counts, counts)
        drawn.append(rows.mean_nats)
        claimed.append(rows.standard_error_nats or 0.0)
    assert np.mean(claimed) == pytest.approx(np.std(drawn), rel=0.08)


@pytest.mark.parametrize("count", [1, 50])
def test_one_row_has_none(count: int) -> None:
    assert rows_of([2.0], [count]).standard_error_nats is None


def test_what_is_hard_for_both_cancels_in_a_difference() -> None:
    chance = np.random.default_rng(5)
    counts = np.full(200, 32)
    hardness, apart = chance.normal(3, 0.5, 200), chance.normal(0.01, 0.02, 200)
    one, other = (
        RowLosses((hardness + apart) * counts, counts),
        RowLosses(hardness * counts, counts),
    )
    difference = one.minus(other)
    assert difference.mean_nats == pytest.approx(one.mean_nats - other.mean_nats)
    assert difference.standard_error_nats == pytest.approx(np.std(apart, ddof=1) / np.sqrt(200))
    unpaired = np.hypot(one.standard_error_nats or 0, other.standard_error_nats or 0)
    assert unpaired > 20 * (difference.standard_error_nats or 0)


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = rows_of([1.5, 2.25, 3.0], [7, 7, 3])
    sha256 = write_rows(tmp_path / "rows", rows, set_sha256=SET, step=4)
    found = read_rows(tmp_path / "rows", sha256=sha256, set_sha256=SET)
    assert found.nats.tolist() == rows.nats.tolist()
    assert found.num_tokens.tolist() == [7, 7, 3]
    for number in range(8):
        again = write_rows(tmp_path / f"{number}", rows, set_sha256=SET, step=4)
        assert again == sha256, "the same rows have the same bytes"


GOOD = {"row_nats": np.array([1.0, 2.0]), "row_num_tokens": np.array([1, 2])}


def about(**changes: str) -> dict[str, str]:
    facts = {"schema": "apr-held-out-v1", "set_sha256": SET} | changes
    return {"apr_held_out": json.dumps(facts)}


NAMED = about()


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        (GOOD, about(schema="apr-held-out-v2")),
        (GOOD, about(set_sha256="0b" * 32)),
        (GOOD, {}),
        (GOOD, {"apr_held_out": "{"}),
        (GOOD, {"apr_held_out": "[]"}),
        (GOOD, {"apr_held_out": "[" * 100_000}),
        ({"row_nats": GOOD["row_nats"]}, NAMED),
        (GOOD | {"row_nats": np.array([1.0, np.nan])}, NAMED),
        (GOOD | {"row_nats": np.array([1.0, np.inf])}, NAMED),
        (GOOD | {"row_nats": np.array([1.0, 2.0], np.float32)}, NAMED),
        (GOOD | {"row_nats": np.array([1.0, 2.0, 3.0])}, NAMED),
        (GOOD | {"row_nats": np.array([[1.0, 2.0]])}, NAMED),
        (GOOD | {"row_num_tokens": np.array([1, 0])}, NAMED),
        (GOOD | {"row_num_tokens": np.array([1, -2])}, NAMED),
        (GOOD | {"row_num_tokens": np.array([1.0, 2.0])}, NAMED),
        ({name: array[:0] for name, array in GOOD.items()}, NAMED),
    ],
)
def test_rows_that_no_validation_gives_are_refused(
    tensors: dict[str, Any], metadata: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "rows"
    save_file(GOOD, path, NAMED)
    assert read_rows(path, sha256=sha256_file(path), set_sha256=SET).total_tokens == 3
    save_file(tensors, path, metadata)
    with pytest.raises(DamagedFile) as refused:
        read_rows(path, sha256=sha256_file(path), set_sha256=SET)
    assert refused.value.id == "run.rows-damaged"


def test_another_file_than_the_recorded_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    sha256 = write_rows(path, rows_of([1.0, 2.0], [3, 3]), set_sha256=SET, step=1)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(Refusal) as refused:
        read_rows(path, sha256=sha256, set_sha256=SET)
    assert refused.value.id == "run.rows-damaged"
