"""What was found out once and need not be again: one small file for each thing it is about.

It counts only for the very subject that it was kept with. A file that is damaged, edited or
another's is as good as none: what it says is found out again.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from apr.errors import Refusal
from apr.files import parse_json, sha256_bytes, write_json

CLOSED = ConfigDict(frozen=True, extra="forbid", strict=True)

_LIMIT_BYTES = 1 << 16

Found = TypeVar("Found", bound=BaseModel)


class _Kept(BaseModel):
    model_config = CLOSED

    subject: dict[str, Any]
    found: dict[str, Any]
    sha256: str


def read_kept(directory: Path | None, subject: BaseModel, kind: type[Found]) -> Found | None:
    """What a directory keeps about a subject, or None where there is nothing to be trusted."""
    if directory is None:
        return None
    path = _path(directory, subject)
    try:
        if not path.is_file():
            return None
        with path.open("rb") as source:
            kept = _Kept.model_validate(parse_json(source.read(_LIMIT_BYTES)))
        found = kind.model_validate(kept.found)
    except (OSError, ValueError):
        return None
    is_sound = kept.subject == subject.model_dump() and kept.sha256 == _sha256(subject, found)
    return found if is_sound else None


def keep(directory: Path | None, subject: BaseModel, found: BaseModel) -> None:
    """Keep something for later runs; a directory that cannot be written only costs them time.

    Writes: one JSON file in `directory`.
    """
    if directory is None:
        return
    kept = _Kept(
        subject=subject.model_dump(), found=found.model_dump(), sha256=_sha256(subject, found)
    )
    with suppress(Refusal):
        write_json(_path(directory, subject), kept.model_dump())


def _path(directory: Path, subject: BaseModel) -> Path:
    return directory / f"{sha256_bytes(_canonical(subject))[:32]}.json"


def _sha256(subject: BaseModel, found: BaseModel) -> str:
    return sha256_bytes(_canonical(subject) + _canonical(found))


def _canonical(model: BaseModel) -> bytes:
    return json.dumps(model.model_dump(), sort_keys=True).encode("ascii")
