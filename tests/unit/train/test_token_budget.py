"""The arithmetic of the token budget, against numbers worked out by hand."""

import pytest

from apr.architecture import preset
from apr.train.token_budget import (
    effective_tokens,
    sufficient_steps,
    sufficient_tokens,
    tokens_worth,
    zone,
)


def test_tokens_seen_once_are_worth_what_they_are():
    assert effective_tokens(700, 1000) == 700
    assert effective_tokens(1000, 1000) == 1000


@pytest.mark.parametrize(
    ("epochs", "worth"),
    # U = 1: 1 + 15.39 (1 - exp(-(epochs - 1) / 15.39)), by hand
    [(2, 1.9682038), (4, 3.7257106), (40, 15.1690797)],
)
def test_repeated_tokens_are_worth_less_each_time(epochs: int, worth: float):
    unique = 1_000_000
    assert effective_tokens(epochs * unique, unique) == pytest.approx(worth * unique, rel=1e-7)


def test_no_number_of_epochs_is_worth_more_than_the_limit():
    assert effective_tokens(10**15, 1000) == pytest.approx(16_390)
    assert effective_tokens(10**6, 0) == 0


def test_a_border_belongs_to_the_zone_above_it():
    assert [zone(ratio) for ratio in (9.99, 10.0, 19.99, 20.0)] == [
        "degeneration",
        "plateau",
        "plateau",
        "optimal",
    ]


def test_qwen_of_half_a_billion_needs_ten_billion_tokens():
    # The Rust tools' formula gives 526,992,256 parameters and 6.7 % too many tokens.
    parameters = preset("qwen2-0.5b", tokenizer_vocab_size=0).num_parameters
    assert parameters == 494_032_768
    assert sufficient_tokens(parameters) == 9_880_655_360
    steps = sufficient_steps(parameters, batch_tokens=16 * 512)
    assert steps == 1_206_135


@pytest.mark.parametrize("share", [0.3, 1.0, 1.5, 4.0, 15.0])
def test_tokens_to_plan_are_the_inverse_of_their_worth(share: float):
    unique = 1_000_000
    planned = tokens_worth(share * unique, unique)
    assert planned is not None
    assert effective_tokens(planned, unique) == pytest.approx(share * unique, rel=1e-5)


def test_no_number_of_epochs_is_worth_enough_beyond_the_limit():
    assert tokens_worth(16_391, 1000) is None
    assert tokens_worth(16_389, 1000) is not None
    assert tokens_worth(1, 0) is None
