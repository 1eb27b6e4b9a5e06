"""What comparisons of encoders came to, kept between runs: one small file per tokenizer.

A verdict counts only for the tokenizer, the versions and the texts it was reached with. A file
that is damaged, edited or another's is as good as none: the comparison is made again.
"""

import json
import platform
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from apr.errors import Refusal
from apr.files import parse_json, sha256_bytes, write_json
from apr.tokenizer import trap_texts

_LIMIT_BYTES = 1 << 16
_CLOSED = ConfigDict(frozen=True, extra="forbid", strict=True)


class Subject(BaseModel):
    """What a verdict is about; each of these may change ids."""

    model_config = _CLOSED

    fingerprint: str
    reference_version: str
    encoder: str
    encoder_version: str
    texts_version: int = trap_texts.VERSION
    seed: int = trap_texts.SEED
    machine: str = Field(default_factory=platform.machine)
    """An encoder has code of its own for each kind of processor."""


class Verdict(BaseModel):
    """Whether an encoder gave the reference's ids."""

    model_config = _CLOSED

    verdict: Literal["equal", "differs"]
    reason: str | None
    num_strings: int = Field(ge=0)
    num_code_points: int = Field(ge=0)
    detail: str | None
    """Where in a corpus a difference was seen; it names a file, so it belongs in no manifest."""


class _Kept(BaseModel):
    model_config = _CLOSED

    subject: Subject
    verdict: Verdict
    sha256: str


def read_verdict(directory: Path | None, subject: Subject) -> Verdict | None:
    """The verdict kept in a directory, or None where there is none to be trusted."""
    if directory is None:
        return None
    path = _path(directory, subject)
    try:
        if not path.is_file():
            return None
        with path.open("rb") as source:
            kept = _Kept.model_validate(parse_json(source.read(_LIMIT_BYTES)))
    except (OSError, ValueError):
        return None
    is_sound = kept.subject == subject and kept.sha256 == _sha256(subject, kept.verdict)
    return kept.verdict if is_sound else None


def keep_verdict(directory: Path | None, subject: Subject, verdict: Verdict) -> None:
    """Keep a verdict for later runs; a directory that cannot be written only costs them time.

    Writes: one JSON file in `directory`.
    """
    kept = _Kept(subject=subject, verdict=verdict, sha256=_sha256(subject, verdict))
    if directory is None:
        return
    with suppress(Refusal):
        write_json(_path(directory, subject), kept.model_dump())


def _path(directory: Path, subject: Subject) -> Path:
    return directory / f"{sha256_bytes(_canonical(subject))[:32]}.json"


def _sha256(subject: Subject, verdict: Verdict) -> str:
    return sha256_bytes(_canonical(subject) + _canonical(verdict))


def _canonical(model: BaseModel) -> bytes:
    return json.dumps(model.model_dump(), sort_keys=True).encode("ascii")
