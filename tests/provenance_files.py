"""documents.jsonl.zst written by hand, sound and damaged."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zstandard

from apr.shards.provenance import PROVENANCE_NAME


def compress(*contents: bytes) -> bytes:
    """One frame for each content, as the parts of an encoding follow one another."""
    return b"".join(zstandard.ZstdCompressor().compress(content) for content in contents)


def lines(rows: Sequence[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def write(directory: Path, *frames: Sequence[Any]) -> Path:
    """A file of several frames, each with its rows."""
    path = directory / PROVENANCE_NAME
    path.write_bytes(compress(*map(lines, frames)))
    return path
