"""How texts are spelled: their characters, their line ends, and files that are not UTF-8."""

from typing import Any

from apr.corpus.reading.locations import open_location
from apr.files import io_refusals

# The marks of UTF-32 begin with those of UTF-16, so they are tried first.
_MARKS = (
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
_PLACES_KEPT = 5


class EncodingTally:
    """Counts of documents by their characters and line ends, and of files that are not UTF-8."""

    def __init__(self) -> None:
        self.num_ascii = 0
        self.num_utf8 = 0
        """Documents with other characters than those of ASCII."""
        self.num_with_nul = 0
        self.line_ends: dict[str, int] = {}
        self.foreign: dict[str, list[str]] = {}
        """The first few files by what they look like."""
        self.num_foreign: dict[str, int] = {}

    def add(self, text: str) -> None:
        """Count one document."""
        if text.isascii():
            self.num_ascii += 1
        else:
            self.num_utf8 += 1
        self.num_with_nul += "\0" in text
        kind = line_ends(text)
        self.line_ends[kind] = self.line_ends.get(kind, 0) + 1

    def add_foreign(self, location: str, *, has_nul: bool) -> None:
        """Count a file that is not UTF-8, or has a NUL as no text has.

        Refuses: files.not-found, files.io-failed.
        """
        name = _marked_encoding(location) or ("binary" if has_nul else "8-bit")
        self.num_foreign[name] = self.num_foreign.get(name, 0) + 1
        places = self.foreign.setdefault(name, [])
        if len(places) < _PLACES_KEPT:
            places.append(location)

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {
            "ascii": self.num_ascii,
            "utf-8": self.num_utf8,
            "num_with_nul": self.num_with_nul,
            "line_ends": dict(sorted(self.line_ends.items())),
            "not_utf8": {
                name: {"num_files": count, "places": self.foreign[name]}
                for name, count in sorted(self.num_foreign.items())
            },
        }


def line_ends(text: str) -> str:
    r"""`lf`, `crlf`, `cr`, `mixed`, or `none` for a text of one line without an end."""
    num_cr = text.count("\r")
    num_crlf = text.count("\r\n") if num_cr else 0
    has_lf = text.count("\n") > num_crlf if num_cr else "\n" in text
    kinds = {"crlf": num_crlf > 0, "cr": num_cr > num_crlf, "lf": has_lf}
    found = [name for name, is_there in kinds.items() if is_there]
    return "mixed" if len(found) > 1 else (found or ["none"])[0]


def _marked_encoding(location: str) -> str | None:
    with io_refusals(location), open_location(location) as opened:
        head = opened.read(4) or b""
    return next((name for mark, name in _MARKS if head.startswith(mark)), None)
