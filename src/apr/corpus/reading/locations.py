r"""Where input lies, a local path or a URL, as text that survives JSON.

A file's name on disk is bytes and need not be UTF-8. A location is its UTF-8 text with every other
byte written as `\xff` and every backslash doubled, so that no two names share a location and the
name can be had back.
"""

import io
import os
import re
from pathlib import Path

from apr.corpus.reading.remote import open_url

_ESCAPE = re.compile(rb"\\(?:\\|x([0-9a-f]{2}))")


def is_url(text: str) -> bool:
    """Whether this is no local path; a path never has two slashes in a row."""
    return "://" in text


def location_text(path: str | os.PathLike[str]) -> str:
    """A path or URL as a location."""
    return os.fsencode(path).replace(b"\\", b"\\\\").decode("utf-8", errors="backslashreplace")


def location_name(location: str) -> str:
    """The path or URL that a location stands for."""
    data = location.encode("utf-8")
    return os.fsdecode(_ESCAPE.sub(_unescaped, data) if b"\\" in data else data)


def location_path(location: str) -> Path:
    """The path that a local location stands for."""
    return Path(location_name(location))


def open_location(location: str) -> io.RawIOBase:
    """Open for reading, unbuffered; a local file raises what the operating system does.

    Refuses: for a URL, as apr.corpus.reading.remote.open_url.
    """
    name = location_name(location)
    return open_url(name) if is_url(name) else io.FileIO(name)


def _unescaped(match: re.Match[bytes]) -> bytes:
    code = match.group(1)
    return b"\\" if code is None else bytes.fromhex(code.decode("ascii"))
