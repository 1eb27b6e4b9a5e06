"""Telling a file that is no `.apr` file what it is, and the person what to do with it.

Only the first bytes are looked at. A pickle runs code when it is read, so one is named and never
opened.
"""

import shlex

from apr.container.layout import MAGIC
from apr.errors import DamagedFile

_PICKLE = "it is never opened, as reading one runs code; get the weights as safetensors"
_LARGEST_SAFETENSORS_HEADER = 100_000_000


def refusal(head: bytes, *, length: int, where: str) -> DamagedFile:
    """The refusal of a file of `length` bytes that does not begin as an `.apr` file does."""
    found, fix = _named(head, length, where)
    return DamagedFile(
        "container.not-apr",
        where,
        found=found,
        expected=f"{MAGIC!r}, the start of an .apr file",
        fix=fix,
    )


def _named(head: bytes, length: int, where: str) -> tuple[str, str]:
    take_over = f"import it first: apr import {shlex.quote(where)} -o model.apr"
    if head.startswith(b"GGUF"):
        return "GGUF, a model of llama.cpp", take_over
    if _is_safetensors(head, length):
        return "safetensors", take_over
    if head.startswith(b"PK\3\4"):
        return "a zip archive, as torch.save writes one around a pickle", _PICKLE
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return f"a Python pickle, protocol {head[1]}", _PICKLE
    if head.startswith(b"version https://git-lfs."):
        return "a Git LFS pointer, not the file itself", "fetch the file: git lfs pull"
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "a web page", "the download went wrong; get the file itself"
    return f"a file that starts with {head[:4]!r}", "name an .apr file"


def _is_safetensors(head: bytes, length: int) -> bool:
    header_bytes = int.from_bytes(head[:8], "little")
    limit = min(length - 8, _LARGEST_SAFETENSORS_HEADER)
    return head[8:9] == b"{" and 2 <= header_bytes <= limit
