"""Published scaling laws at points worked out by hand."""

import pytest

from apr.train.scaling_law import LAWS, outside_of_the_fit, why_no_number


@pytest.mark.parametrize(
    ("name", "loss_nats"),
    # Chinchilla itself, 70B parameters and 1.4T tokens:
    # 1.69 + 406.4 / 70e9^0.34 + 410.7 / 1.4e12^0.28; 1.8172 + 482.01 / 70e9^0.3478 + ...
    [("hoffmann-2022", 1.9367), ("besiroglu-2024", 1.9738)],
)
def test_chinchilla(name: str, loss_nats: float) -> None:
    law = next(law for law in LAWS if law.name == name)
    assert law.loss_nats(70_000_000_000, 1.4e12) == pytest.approx(loss_nats, abs=1e-3)


def test_what_was_not_fitted_is_said() -> None:
    assert outside_of_the_fit(70_000_000, 5e9) == []
    assert outside_of_the_fit(16_000_000_000, 500e9) == []
    assert outside_of_the_fit(69_999_999, 4.9e9) == [
        "parameters outside of 70M to 16B",
        "tokens outside of 5B to 500B",
    ]


def test_no_law_speaks_of_a_model_or_a_loss_that_no_run_of_it_had() -> None:
    for law in LAWS:
        assert why_no_number(law, 70_000_000, 5e9, vocab_size=32_000) is None
        tiny = why_no_number(law, 69_999_999, 5e9, vocab_size=32_000)
        assert tiny == "the law was fitted to models of 70M to 16B parameters, not of 69,999,999"
    # exp(9.5) entries; 411 / 1e4^0.28 and 2085 / 1e4^0.37 are 31 and 72 nats.
    for law in LAWS:
        above = why_no_number(law, 70_000_000, 1e4, vocab_size=13_360)
        assert above is not None
        assert "above the 9.50 nats of guessing among 13,360 entries" in above
    assert why_no_number(LAWS[0], 70_000_000, 1e8, vocab_size=13_360) is None
