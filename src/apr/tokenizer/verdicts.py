"""What comparisons of encoders came to, kept between runs: one small file per tokenizer.

A verdict counts only for the tokenizer, the versions and the texts it was reached with.
"""

import platform
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from apr.tokenizer import trap_texts
from apr.tokenizer.kept import CLOSED, keep, read_kept


class Subject(BaseModel):
    """What a verdict is about; each of these may change ids."""

    model_config = CLOSED

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

    model_config = CLOSED

    verdict: Literal["equal", "differs"]
    reason: str | None
    num_strings: int = Field(ge=0)
    num_code_points: int = Field(ge=0)
    detail: str | None
    """Where in a corpus a difference was seen; it names a file, so it belongs in no manifest."""


def read_verdict(directory: Path | None, subject: Subject) -> Verdict | None:
    """The verdict kept in a directory, or None where there is none to be trusted."""
    return read_kept(directory, subject, Verdict)


def keep_verdict(directory: Path | None, subject: Subject, verdict: Verdict) -> None:
    """Keep a verdict for later runs; a directory that cannot be written only costs them time.

    Writes: one JSON file in `directory`.
    """
    keep(directory, subject, verdict)
