"""Which tokenizer.json files were read and checked in full, kept between runs.

Checking a large one takes longer than using it: every merge, every id, and what Hugging Face's
library makes of them. What is kept says that these very bytes passed, and their fingerprint. It
says nothing of the files beside them, and only of files that were not refused.
"""

from pathlib import Path
from typing import Annotated

import tokenizers
from pydantic import BaseModel, Field

from apr import __version__
from apr.tokenizer.kept import CLOSED, keep, read_kept

VERSION = 1
"""Goes up with any change to what `read_definition` or `require_same_ids` refuse, or to the
fingerprint: a file that passed other checks is checked again."""


class Subject(BaseModel):
    """The bytes of a tokenizer.json, and what they were checked by."""

    model_config = CLOSED

    json_sha256: str
    checks_version: int = VERSION
    apr_version: str = __version__
    library_version: str = tokenizers.__version__


class Checked(BaseModel):
    """That the bytes passed, and what they are."""

    model_config = CLOSED

    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def read_checked(directory: Path | None, json_sha256: str) -> Checked | None:
    """What a directory keeps about a file, or None where the file is to be checked."""
    return read_kept(directory, Subject(json_sha256=json_sha256), Checked)


def keep_checked(directory: Path | None, json_sha256: str, *, fingerprint: str) -> None:
    """Keep that a file passed every check; only a caller that has seen it pass may say so.

    Writes: one JSON file in `directory`, where that is possible.
    """
    keep(directory, Subject(json_sha256=json_sha256), Checked(fingerprint=fingerprint))
