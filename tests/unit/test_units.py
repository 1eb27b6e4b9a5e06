"""Quantities as a person reads them: three digits, the right unit, no powers of ten."""

import pytest

from apr.units import bits_per_byte, format_bytes, format_count, format_duration


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0"),
        (512, "512"),
        (999, "999"),
        (999.7, "1K"),
        (8_620, "8.62K"),
        (999_499, "999K"),
        (999_999, "1M"),
        (494_032_768, "494M"),
        (1_240_000_000, "1.24B"),
        (-2_500, "-2.5K"),
    ],
)
def test_counts_have_three_digits(count: float, words: str) -> None:
    assert format_count(count) == words


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (1010 * 1024, "1010 KiB"),
        (942 << 20, "942 MiB"),
        (1 << 40, "1 TiB"),
    ],
)
def test_sizes_are_in_powers_of_1024(size_bytes: int, words: str) -> None:
    assert format_bytes(size_bytes) == words


@pytest.mark.parametrize(
    ("elapsed_s", "words"),
    [(0.4, "0s"), (59.6, "1m00s"), (187, "3m07s"), (7_500, "2h05m"), (-3, "0s")],
)
def test_durations_are_to_the_second(elapsed_s: float, words: str) -> None:
    assert format_duration(elapsed_s) == words


def test_bits_per_byte_is_the_loss_over_the_text() -> None:
    # One token of two bytes at ln 4 nats costs two bits: one bit per byte.
    two_bits = 1.3862943611198906
    assert bits_per_byte(loss_nats=two_bits, num_tokens=10, text_bytes=20) == pytest.approx(1.0)
    assert bits_per_byte(loss_nats=two_bits, num_tokens=10, text_bytes=0) is None
