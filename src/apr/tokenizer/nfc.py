"""Texts that Unicode's canonical composition (NFC) leaves as they are, found without composing.

A text whose every character has combining class 0 and never joins the one before it is in NFC
already (Unicode Standard Annex 15, quick check). Those properties of an assigned character never
change, so the ranges below, which hold most of what sources are written in, need no version.
"""

import numpy as np

_NUM_CODE_POINTS = 0x110000
# Latin, Greek, Cyrillic, punctuation, arrows, mathematics, boxes, symbols, Japanese, Chinese and
# Korean writing, full-width forms, emoji.
_INERT_RANGES = (
    (0x0000, 0x02FF), (0x0391, 0x03A1), (0x03A3, 0x03FF), (0x0400, 0x0482), (0x048A, 0x052F),
    (0x2010, 0x2027), (0x2030, 0x205E), (0x2070, 0x2071), (0x20A0, 0x20BF), (0x2100, 0x2125),
    (0x2190, 0x2328), (0x2460, 0x2ADB), (0x3001, 0x3029), (0x3041, 0x3096), (0x309D, 0x309F),
    (0x30A1, 0x30FF), (0x4E00, 0x9FEA), (0xAC00, 0xD7A3), (0xFE0F, 0xFE0F), (0xFF01, 0xFF9F),
    (0x1F300, 0x1F64F), (0x1F680, 0x1F6D2),
)  # fmt: skip

_IS_INERT = np.zeros(_NUM_CODE_POINTS, np.bool_)
for _first, _last in _INERT_RANGES:
    _IS_INERT[_first : _last + 1] = True


def is_surely_nfc(text: str) -> bool:
    """Whether composing certainly changes nothing; False where only composing can tell."""
    code_points = np.frombuffer(text.encode("utf-32-le"), "<u4")
    return bool(_IS_INERT[code_points].all())
