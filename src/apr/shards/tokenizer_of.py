"""The tokenizer that a directory of shards was made with: the one given, or the one on record.

encode.json names the file that was used; it is taken only when its fingerprint is the manifest's.
"""

from pathlib import Path
from typing import Any

from apr.corpus.reading.locations import location_path
from apr.errors import Refusal
from apr.files import parse_json
from apr.shards.reader import ShardReader
from apr.tokenizer.tokenizer import Tokenizer

_RECORD_NAME = "encode.json"
_RECORD_LIMIT_BYTES = 64 << 20


def tokenizer_of(reader: ShardReader, given: Path | None) -> Tokenizer | None:
    """The tokenizer of these shards, None when none was given and none is found.

    Refuses: shards.other-tokenizer for a given one that is another, and whatever loading it
    refuses.
    """
    if given is None:
        return _recorded(reader)
    tokenizer = Tokenizer.load(given)
    if tokenizer.fingerprint != reader.manifest.tokenizer_fingerprint:
        raise other_tokenizer(reader, tokenizer)
    return tokenizer


def other_tokenizer(reader: ShardReader, tokenizer: Tokenizer) -> Refusal:
    """The refusal of a tokenizer that did not make these shards."""
    return Refusal(
        "shards.other-tokenizer",
        reader.directory,
        found=f"tokenizer fingerprint {tokenizer.fingerprint} of {tokenizer.where}",
        expected=f"{reader.manifest.tokenizer_fingerprint}, as the manifest says",
        fix="pass the tokenizer that made the shards",
    )


def recorded_path(directory: Path) -> Path | None:
    """Where encode.json says that the tokenizer lay; None where it says nothing."""
    path = directory / _RECORD_NAME
    try:
        if not path.is_file() or path.stat().st_size > _RECORD_LIMIT_BYTES:
            return None
        record: Any = parse_json(path.read_bytes())
        return location_path(record["tokenizer"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, Refusal):
        return None


def _recorded(reader: ShardReader) -> Tokenizer | None:
    """A hint that leads nowhere is as good as none."""
    path = recorded_path(reader.directory)
    if path is None:
        return None
    try:
        tokenizer = Tokenizer.load(path)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, Refusal):
        return None
    fits = tokenizer.fingerprint == reader.manifest.tokenizer_fingerprint
    return tokenizer if fits else None
