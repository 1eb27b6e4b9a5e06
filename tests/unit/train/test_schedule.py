"""The rate of every step: warm-up, then one of three ways down."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from apr.train.resolved_config import resolve_config
from apr.train.schedule import learning_rate_at


def rates(**options: Any) -> list[float]:
    config = resolve_config(
        {
            "dataset": Path("d"),
            "tokenizer": Path("t"),
            "run_dir": Path("r"),
            "learning_rate": 1e-3,
            "warmup_steps": 10,
            "num_steps": 100,
            "eval_every": 1,
        }
        | options
    )
    return [learning_rate_at(step, config) for step in range(1, config.num_steps + 1)]


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "constant"])
def test_every_schedule_warms_up_to_the_peak(schedule: str) -> None:
    found = rates(schedule=schedule)
    assert found[:10] == [pytest.approx(1e-3 * step / 10) for step in range(1, 11)]
    assert found[9] == 1e-3 == max(found)


def test_cosine_falls_to_the_floor_at_the_last_step() -> None:
    found = rates(schedule="cosine")
    assert found[54] == pytest.approx((1e-3 + 1e-5) / 2)
    assert found[-1] == pytest.approx(1e-5)
    assert all(after < before for before, after in pairwise(found[9:]))


def test_wsd_stays_and_falls_over_its_last_part() -> None:
    found = rates(schedule="wsd", decay_fraction=0.25)
    assert set(found[9:75]) == {1e-3}
    assert found[-1] == pytest.approx(1e-5)
    differences = {round(before - after, 12) for before, after in pairwise(found[74:])}
    assert differences == {round((1e-3 - 1e-5) / 25, 12)}


def test_wsd_falls_over_a_fifth_unless_told_otherwise() -> None:
    found = rates(schedule="wsd")
    assert (found[79], found[80] < 1e-3) == (1e-3, True)


def test_constant_stays() -> None:
    assert set(rates(schedule="constant")[9:]) == {1e-3}


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "constant"])
def test_no_rate_is_zero_or_above_its_peak(schedule: str) -> None:
    for options in ({"num_steps": 1, "warmup_steps": 0}, {"learning_rate": 1e-9}):
        found = rates(schedule=schedule, **options)
        assert all(0 < rate <= options.get("learning_rate", 1e-3) for rate in found)
