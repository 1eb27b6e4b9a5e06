"""F31: thresholds with one side.

A loss of 0.0008 is lower than any target, and no model has it on text it never saw. What judges a
held-out loss, the validation of a run and the comparison of two, is fed 0.0008, -0.1, NaN and 40.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.compared_runs import finished_run, in_bits, rewrite, row_losses
from tests.faults.test_f22_validation_drift import held_out, small_model

from apr.errors import DamagedFile, Refusal
from apr.report.comparison import compare_runs
from apr.train.loss import summed_loss
from apr.train.plausible import implausible
from apr.train.validation import validate


def every_token_at(loss_nats: float) -> Callable[..., torch.Tensor]:
    """A loss function that gives each counted token the same."""

    def planted(*arguments: Any) -> torch.Tensor:
        counted = (arguments[2] >= 0).sum(dim=1)
        return torch.where(counted > 0, counted * loss_nats, 0.0)

    return planted


@pytest.mark.parametrize(
    ("loss_nats", "id"),
    [
        (0.0008, "train.impossible-validation"),
        (-0.1, "train.impossible-validation"),
        (0.0, "train.impossible-validation"),
        (float("nan"), "train.non-finite-validation"),
        (float("inf"), "train.non-finite-validation"),
    ],
)
def test_a_validation_below_what_text_allows_is_refused(
    loss_nats: float, id: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"batch_size": 4, "document_mask": True}
    chosen, model = held_out(tmp_path), small_model()
    with pytest.raises(Refusal) as refused:
        validate(model, chosen, summed_loss=every_token_at(loss_nats), **options)
    assert refused.value.id == id
    # The twins: a good loss, a very good one, and one of a run that diverges, which goes on.
    for fine in (3.0, 0.02, 40.0):
        found = validate(model, chosen, summed_loss=every_token_at(fine), **options)
        assert found.loss_nats == pytest.approx(fine)
    assert validate(model, chosen, summed_loss=summed_loss, **options).loss_nats > 1.0


@pytest.mark.parametrize("loss_nats", [0.0008, -0.1, 40.0, 1e300])
def test_a_run_with_such_a_loss_is_not_ranked(loss_nats: float, tmp_path: Path) -> None:
    def plant(record: dict[str, Any]) -> None:
        record["val"] |= {"best_loss_nats": loss_nats, "bits_per_byte": in_bits(loss_nats)}

    good = [finished_run(tmp_path / name, row_losses(seed=n)) for n, name in enumerate("ab")]
    planted = finished_run(tmp_path / "planted", row_losses(seed=7))
    rewrite(planted, plant)
    found = compare_runs([planted, *good])
    assert [standing.rank for standing in found.standings] == [1, 2, None]
    last = found.standings[-1]
    assert last.run.path == planted
    assert f"a loss of {loss_nats:.3g} nats is" in (last.run.reason or "")
    with pytest.raises(Refusal) as refused:
        compare_runs([planted, good[0]])
    assert refused.value.id == "compare.not-measured"


def test_a_run_whose_loss_is_no_number_has_no_record(tmp_path: Path) -> None:
    good, planted = (finished_run(tmp_path / name, row_losses(seed=1)) for name in "ab")
    rewrite(planted, lambda record: record["val"].update(best_loss_nats=float("nan")))
    with pytest.raises(DamagedFile) as refused:
        compare_runs([good, planted])
    assert refused.value.id == "run.record-damaged"


def test_both_sides_of_the_band() -> None:
    assert implausible(0.02, vocab_size=512) is None
    assert implausible(6.7, vocab_size=512) is None
    assert implausible(40.0) is None
    for loss_nats in (0.0008, -0.1, 0.0, 6.8, 40.0, float("nan"), float("inf"), -float("inf")):
        assert implausible(loss_nats, vocab_size=512), loss_nats
