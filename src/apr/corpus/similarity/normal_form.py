"""When two texts count as the same: equal but for line ends, trailing white space and composition.

A file that went through another editor, operating system or archive is the same document to a
model, and a hash of its bytes says it is another one.
"""

import hashlib
import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

from apr.corpus.identity import DOCUMENT_HASH_BYTES

RULE = "line ends as \\n, no white space at the end of a line or of the text, no BOM, Unicode NFC"

_BYTE_ORDER_MARK = "\ufeff"
# Marks in a row that real text has (UAX #15, Stream-Safe Text Format). Composing sorts them in
# quadratic time, so that a megabyte of marks would take hours: such a text stays as it is.
_MOST_MARKS = 30


def normal_form(text: str) -> str:
    """The spelling that all texts which count as the same share; time is linear in the text."""
    text = text.removeprefix(_BYTE_ORDER_MARK)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii() and _longest_run_of_marks(text) <= _MOST_MARKS:
        text = unicodedata.normalize("NFC", text)
    if not (text.isascii() and _has_bare_line_ends(text)):
        text = "\n".join([line.rstrip() for line in text.split("\n")])
    return text.rstrip()


def normal_hash(text: str) -> bytes:
    """16 bytes that are equal for texts of one normal form; no document hash."""
    return normal_form_hash(normal_form(text))


def normal_form_hash(form: str) -> bytes:
    """As normal_hash, of what is a normal form already."""
    data = form.encode("utf-8")
    return hashlib.blake2b(data, digest_size=DOCUMENT_HASH_BYTES, person=b"apr-normal").digest()


def _has_bare_line_ends(text: str) -> bool:
    """Whether no line of an ASCII text ends with white space; a few are said to that do not."""
    data = np.frombuffer(text.encode("ascii"), np.uint8)
    line_ends = np.flatnonzero(data == ord("\n"))
    return not _spaces()[data[line_ends - 1]].any()


@cache
def _spaces() -> NDArray[np.bool_]:
    """By byte, whether it is white space within a line."""
    return np.array([chr(byte).isspace() and byte != ord("\n") for byte in range(128)])


def _longest_run_of_marks(text: str) -> int:
    marks = _marks()
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    others = np.flatnonzero(~marks[np.minimum(points, len(marks) - 1)])
    gaps = np.diff(others, prepend=-1, append=len(points))
    return int(gaps.max()) - 1


@cache
def _marks() -> NDArray[np.bool_]:
    """By code point, whether it combines with what stands before it; the last entry does not."""
    return np.array([unicodedata.combining(chr(point)) > 0 for point in range(0x1F000)])
