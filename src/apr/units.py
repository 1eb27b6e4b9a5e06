"""Conversions between units, and how quantities are written for a person."""

import math


def bits_per_byte(*, loss_nats: float, num_tokens: int, text_bytes: int) -> float | None:
    """Loss per token turned into bits per byte of the text those tokens spell.

    Comparable between tokenizers, which nats per token is not. None when there is no text.

    Units: `loss_nats` per counted token.
    """
    if text_bytes <= 0:
        return None
    return loss_nats / math.log(2) * num_tokens / text_bytes


def format_count(count: float) -> str:
    """A count with three significant digits: 512, 8.62K, 494M, 1.24B."""
    for limit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        # What rounds to a thousand of one unit is one of the next: 1M, never 1e+03K.
        if abs(count) >= 0.9995 * limit:
            return f"{count / limit:.3g}{suffix}"
    return f"{count:.3g}" if isinstance(count, float) else str(count)


def format_bytes(size_bytes: float) -> str:
    """A size in powers of 1024: 512 B, 1.5 KiB, 942 MiB."""
    for limit, suffix in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if abs(size_bytes) >= limit:
            units = size_bytes / limit
            # A unit is 1024 of the one before, so four digits happen: 1010 KiB.
            return f"{units:.0f} {suffix}" if abs(units) >= 999.5 else f"{units:.3g} {suffix}"
    return f"{int(size_bytes)} B"


def format_duration(elapsed_s: float) -> str:
    """A duration to the second: 4s, 3m07s, 2h05m."""
    whole_s = max(0, round(elapsed_s))
    if whole_s < 60:
        return f"{whole_s}s"
    if whole_s < 3600:
        return f"{whole_s // 60}m{whole_s % 60:02d}s"
    return f"{whole_s // 3600}h{whole_s % 3600 // 60:02d}m"
