"""Text that a terminal shows and does not obey."""

import re

_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def clean(text: str) -> str:
    """Text without control characters, so that no file can drive the terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
