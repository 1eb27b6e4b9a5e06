"""Published scaling laws at points worked out by hand."""

import pytest

from apr.train.scaling_law import LAWS, outside_of_the_fit


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
