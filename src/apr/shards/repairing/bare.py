"""A directory of shards as the Rust `apr` leaves it: raw u32 files, and a manifest or none.

Nothing in it says what the ids are, so what can be checked is checked hard: names without gaps,
sizes of whole tokens, and agreement with the old manifest where there is one.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from apr.errors import DamagedFile, Refusal
from apr.files import io_refusals, parse_json, require_exists
from apr.shards.layout import TOKEN_DTYPE
from apr.shards.manifest import MANIFEST_NAME, EosPolicy

RECORD_NAME = "repair.json"

_NAME = re.compile(r"shard-([0-9]{4,6})\.bin")
_MANIFEST_LIMIT_BYTES = 64 << 20


class OldManifest(BaseModel):
    """What is used of a manifest of the Rust tool; it names more, and proves none of it."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    schema_: Literal["pretokenize-bin-v1"]
    eos_policy: EosPolicy | None = None
    eos_token_id: int | None = None
    shard_count: int | None = None
    total_tokens: int | None = None
    total_documents: int | None = None
    vocab_size: int | None = None


@dataclass(frozen=True)
class BareShards:
    """The shards of one directory, in the order of their names."""

    directory: Path
    files: list[Path]
    """Those that hold tokens."""
    empty_files: list[Path]
    old_manifest_value: dict[str, Any] | None
    """The old manifest as it was, also from the record of an earlier repair."""
    is_old_manifest_in_place: bool

    @property
    def old_manifest(self) -> OldManifest | None:
        """What is used of the old manifest."""
        return _as_old_manifest(self.old_manifest_value)

    @property
    def total_tokens(self) -> int:
        """Tokens of all files, by their sizes."""
        return sum(file.stat().st_size for file in self.files) // TOKEN_DTYPE.itemsize


def list_bare(directory: Path) -> BareShards:
    """Find the shards of a directory and compare them with its old manifest.

    Refuses: files.not-found, shards.not-a-directory, shards.repair-names (INV-PRETOK-004),
    shards.repair-empty, shards.repair-size (INV-PRETOK-002), shards.repair-contradicted.
    """
    require_exists(directory, "a directory of shards")
    if not directory.is_dir():
        raise DamagedFile(
            "shards.not-a-directory",
            directory,
            found="a file",
            expected="a directory of shards",
            fix="name the directory that holds shard-00000.bin",
        )
    with io_refusals(directory):
        files = sorted(path for path in directory.iterdir() if path.suffix == ".bin")
        _require_numbered(directory, files)
        sizes = {file: file.stat().st_size for file in files}
    for file, size_bytes in sizes.items():
        _require_whole_tokens(file, size_bytes)
    in_place = _read_object(directory / MANIFEST_NAME)
    earlier: object = (_read_object(directory / RECORD_NAME) or {}).get("old_manifest")
    bare = BareShards(
        directory=directory,
        files=[file for file in files if sizes[file]],
        empty_files=[file for file in files if not sizes[file]],
        old_manifest_value=in_place if _as_old_manifest(in_place) else _as_object(earlier),
        is_old_manifest_in_place=_as_old_manifest(in_place) is not None,
    )
    if not bare.files:
        raise Refusal(
            "shards.repair-empty",
            directory,
            found=f"{len(files)} .bin files, none with a token",
            expected="shards that hold tokens",
            fix="name the directory that the shards were written to",
        )
    _require_agreement(bare)
    return bare


def _require_numbered(directory: Path, files: list[Path]) -> None:
    """Names in the order of their numbers and none missing: a lost shard is lost text."""
    numbers = [_NAME.fullmatch(file.name) for file in files]
    strange = [file.name for file, number in zip(files, numbers, strict=True) if not number]
    widths = {len(file.name) for file in files}
    found = [int(number[1]) for number in numbers if number]
    if strange or len(widths) > 1 or found != list(range(len(files))):
        seen = ", ".join(strange[:4]) or ", ".join(file.name for file in files[:8])
        raise Refusal(
            "shards.repair-names",
            directory,
            found=seen,
            expected="shard-00000.bin and so on, numbered without a gap, in one width",
            fix="put the missing shards back, and move files of other encodings away",
            upstream_id="INV-PRETOK-004",
        )
    for file in files:
        if not file.is_file():
            raise Refusal(
                "shards.repair-names",
                file,
                found="something that is no regular file",
                expected="a file of token ids",
                fix="move it away, or put the shard in its place",
                upstream_id="INV-PRETOK-004",
            )


def _require_whole_tokens(file: Path, size_bytes: int) -> None:
    if size_bytes % TOKEN_DTYPE.itemsize == 0:
        return
    halves = "; two-byte ids would fit" if size_bytes % 2 == 0 else ""
    raise DamagedFile(
        "shards.repair-size",
        file,
        found=f"{size_bytes} bytes{halves}",
        expected="a multiple of 4, as every id takes four bytes",
        fix="copy the file again; shards of two-byte ids have to be encoded again",
        upstream_id="INV-PRETOK-002",
    )


def _read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object, None where there is no file, or one that is no such thing."""
    try:
        if not path.is_file() or path.stat().st_size > _MANIFEST_LIMIT_BYTES:
            return None
        return _as_object(parse_json(path.read_bytes()))
    except (OSError, ValueError):
        return None


def _as_object(value: object) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _as_old_manifest(fields: dict[str, Any] | None) -> OldManifest | None:
    if fields is None:
        return None
    try:
        return OldManifest.model_validate(fields | {"schema_": fields.get("schema")})
    except ValidationError:
        return None


def _require_agreement(bare: BareShards) -> None:
    """The old manifest counts what lies there; if not, shards are missing or of two encodings."""
    old = bare.old_manifest
    if old is None:
        return
    num_files = len(bare.files) + len(bare.empty_files)
    for name, found, recorded in (
        ("shard_count", num_files, old.shard_count),
        ("total_tokens", bare.total_tokens, old.total_tokens),
    ):
        if recorded is not None and found != recorded:
            raise contradicted(bare.directory, f"{name} {found}", f"{name} {recorded}")


def contradicted(directory: Path, found: str, recorded: str) -> Refusal:
    """The refusal of shards that are not those their old manifest describes."""
    return Refusal(
        "shards.repair-contradicted",
        directory / MANIFEST_NAME,
        found=found,
        expected=f"{recorded}, as the old manifest says",
        fix="put the shards of that encoding back; if the manifest is of another one, move it away",
    )
