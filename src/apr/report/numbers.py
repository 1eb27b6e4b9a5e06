"""How a record's quantities and moments are written for a reader."""

from datetime import datetime

from apr.units import format_count

_LARGEST_SPELLED = 1e15


def count_words(value: float) -> str:
    """A count in full, or in powers of ten when nobody could read it."""
    return f"{value:,.0f}" if abs(value) < _LARGEST_SPELLED else f"{value:.3g}"


def short_words(value: float) -> str:
    """A count in three digits: 494M."""
    return format_count(value) if abs(value) < _LARGEST_SPELLED else f"{value:.3g}"


def loss_words(value: float) -> str:
    """A loss with three decimals, or in powers of ten where it is out of all proportion."""
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.3g}"


def error_words(value: float) -> str:
    """A standard error with two digits that count."""
    return f"{value:.4f}" if 0.001 <= abs(value) < 1000 else f"{value:.2g}"


def ratio_words(value: float) -> str:
    """A small quantity with two decimals, or three digits where those would say nothing."""
    return f"{value:.2f}" if 0.01 <= abs(value) < 1000 else f"{value:.3g}"


def moment(text: str | None) -> datetime | None:
    """A recorded moment; None when it is absent, unreadable or without its offset."""
    try:
        parsed = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return parsed if parsed is not None and parsed.tzinfo is not None else None


def moment_words(text: str) -> str:
    """A recorded moment to the minute, or as it stands when it cannot be read."""
    parsed = moment(text)
    if parsed is None or parsed.utcoffset():
        return text
    return f"{parsed:%Y-%m-%d %H:%M} UTC"
