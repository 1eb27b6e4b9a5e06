"""manifest.json: the truth about a directory of shards, written last.

A directory without it is not a set of shards, whatever lies there. It holds nothing that
depends on time, path, host or number of workers, so the sha256 of the file is the identity of
the data; how the directory came to be stands in encode.json.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apr.errors import DamagedFile
from apr.files import parse_json, read_bytes, require_exists, sha256_bytes, write_bytes
from apr.shards.layout import TOKEN_DTYPE, shard_name

MANIFEST_NAME = "manifest.json"
EosPolicy = Literal["after", "between", "none"]

_LIMIT_BYTES = 64 << 20

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ShardFile(_Closed):
    """One shard: its two files, by size and hash."""

    file: str
    num_tokens: Count
    num_documents: Count
    size_bytes: Count
    sha256: Sha256
    index_sha256: Sha256


class Statistics(_Closed):
    """What the ids look like; degenerate data shows here before it shows in a loss."""

    bytes_per_token: float
    """Bytes of text per token, separators not counted."""
    unigram_entropy_bits: float
    """Entropy of the token frequencies, separators not counted."""
    longest_run: Count
    """Most repetitions of one id in a row, separators not counted."""
    unk_rate: float
    """Share of tokens that are the tokenizer's unknown token."""
    max_token_id: Count
    num_documents_changed_by_normalizer: Count | None
    """None only where the manifest was repaired."""
    num_documents_with_control_text: Count | None
    """Documents that spell a control token, such as `<|endoftext|>`; it was encoded as text. None
    only where the manifest was repaired."""


class EncoderRecord(_Closed):
    """Which encoder made the ids, and what shows that the reference would have made the same."""

    name: str
    version: str
    reference_version: str
    proof: dict[str, str | int | None]
    """What was compared before the encoding, and with which verdict."""
    num_shadowed: Count
    """Documents that the reference encoded as well, while the encoding ran."""


class CertifiedSide(_Closed):
    """Which side of which certificate these documents are."""

    sha256: Sha256
    side: Literal["train", "held-out"]


class Repaired(_Closed):
    """What a manifest that was made from ids alone cannot know; see apr.shards.repairing."""

    unknown: list[str]
    """Fields that hold an assumption, or nothing where something may have been."""
    num_compared: Count
    """Documents that were decoded and encoded again with the assumed tokenizer."""
    num_same_ids: Count
    """Those of them that came out with the same ids."""
    empty_files: list[str]
    """Shards without a token that lie in the directory and are no part of the data."""


class Manifest(_Closed):
    """What a directory of shards holds."""

    schema_: Literal["apr-shards-v1"] = Field(alias="schema", default="apr-shards-v1")
    dtype: Literal["uint32"] = "uint32"
    tokenizer_fingerprint: Sha256
    vocab_size: Count
    eos_policy: EosPolicy
    eos_token: str | None
    eos_token_id: Count | None
    eos_token_count: Count
    total_tokens: Count
    total_documents: Count
    text_bytes: Count
    """UTF-8 bytes of the documents' text, before any normalizer of the tokenizer."""
    shard_count: Count
    shards: list[ShardFile]
    documents_sha256: Sha256
    """Identity of the set of documents, see `apr.corpus.identity`."""
    rows_read: Count
    """Documents, dropped and quarantined rows together; a file that is no table is one row."""
    drops: dict[str, Count]
    """Rows that were left out by a rule, by reason."""
    quarantined: dict[str, Count]
    """Rows that claimed to be documents and were none, by reason."""
    statistics: Statistics
    encoder: EncoderRecord | None
    """None only where the manifest was repaired."""
    certificate: CertifiedSide | None
    repaired: Repaired | None = None


def num_separators(eos_policy: EosPolicy, num_documents: int) -> int:
    """How many separators a policy puts among so many documents."""
    return {"after": num_documents, "between": num_documents - 1, "none": 0}[eos_policy]


def manifest_bytes(manifest: Manifest) -> bytes:
    """The one spelling of a manifest; its last field is the hash of the others."""
    fields = manifest.model_dump(by_alias=True)
    return _spell(fields | {"manifest_content_sha256": _content_sha256(fields)})


def write_manifest(directory: Path, manifest: Manifest) -> str:
    """Write a manifest and return the sha256 of its file."""
    data = manifest_bytes(manifest)
    write_bytes(directory / MANIFEST_NAME, data)
    return sha256_bytes(data)


def read_manifest(directory: Path) -> tuple[Manifest, str]:
    """Read and cross-check a directory's manifest; also the sha256 of its file.

    Refuses: files.not-found, shards.not-a-directory, shards.manifest-missing,
    shards.manifest-damaged, shards.manifest-edited, shards.manifest-inconsistent.
    """
    require_exists(directory, "a directory of shards")
    path = directory / MANIFEST_NAME
    if not directory.is_dir():
        raise _damaged("shards.not-a-directory", directory, "a file", "a directory of shards")
    if not path.exists():
        raise DamagedFile(
            "shards.manifest-missing",
            path,
            found=f"{len(list(directory.glob('*.bin')))} .bin files and no manifest",
            expected="the manifest that encoding writes last",
            fix=_how_to_have_shards(directory),
        )
    data = read_bytes(
        path, limit_bytes=_LIMIT_BYTES, id="shards.manifest-damaged", what="a shard manifest"
    )
    manifest = _parse(data, path)
    for found, expected in _contradictions(manifest):
        if found != expected:
            raise _damaged("shards.manifest-inconsistent", path, str(found), str(expected))
    return manifest, sha256_bytes(data)


def _how_to_have_shards(directory: Path) -> str:
    names = [each.name for each in directory.iterdir() if not each.name.startswith(".")]
    manifests = sorted(directory.glob(f"*/{MANIFEST_NAME}"))
    below = [str(each.parent) for each in manifests if [*each.parent.glob("*.idx")]]
    if below:
        return f"name a directory of shards in it: {', '.join(below)}"
    if names and not any(name.endswith((".bin", ".idx")) for name in names):
        return (
            "if it holds text, encode that first: apr tokenize encode-corpus "
            f"--corpus {directory} --tokenizer TOKENIZER -o shards/train"
        )
    return "encode the corpus again; for shards of the Rust apr: apr tokenize repair-manifest"


def _parse(data: bytes, path: Path) -> Manifest:
    try:
        value: Any = parse_json(data)
    except ValueError as err:
        raise _damaged("shards.manifest-damaged", path, str(err), "strict JSON") from err
    if not isinstance(value, dict):
        raise _damaged("shards.manifest-damaged", path, type(value).__name__, "a JSON object")
    fields = cast("dict[str, Any]", value)
    recorded = fields.pop("manifest_content_sha256", None)
    try:
        manifest = Manifest.model_validate(fields)
    except ValidationError as err:
        first = err.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _damaged(
            "shards.manifest-damaged", path, f"{place}: {first['msg']}", "a manifest"
        ) from err
    if recorded != _content_sha256(fields):
        found = f"fields whose sha256 is {_content_sha256(fields)}"
        raise _damaged("shards.manifest-edited", path, found, f"manifest_content_sha256 {recorded}")
    return manifest


def _contradictions(manifest: Manifest) -> list[tuple[str, str]]:
    """What the manifest says in two ways, as (found, expected)."""
    shards = manifest.shards
    separators = num_separators(manifest.eos_policy, manifest.total_documents)
    largest_id = max(manifest.statistics.max_token_id, manifest.eos_token_id or 0)
    has_id = manifest.eos_token_id is not None
    left_out = sum(manifest.drops.values()) + sum(manifest.quarantined.values())
    pairs = [
        ("shard_count", manifest.shard_count, len(shards)),
        ("total_tokens", manifest.total_tokens, sum(shard.num_tokens for shard in shards)),
        ("total_documents", manifest.total_documents, sum(shard.num_documents for shard in shards)),
        ("rows_read", manifest.rows_read, manifest.total_documents + left_out),
        ("eos_token_count", manifest.eos_token_count, separators),
        ("a separator has an id", manifest.eos_policy == "none" or has_id, True),
        ("every id below vocab_size", largest_id < manifest.vocab_size, True),
        ("at least one document", manifest.total_documents > 0, True),
        ("an encoder, or a repair", manifest.encoder is None, manifest.repaired is not None),
    ]
    for shard_index, shard in enumerate(shards):
        size_bytes = shard.num_tokens * TOKEN_DTYPE.itemsize
        pairs += [
            (f"name of shard {shard_index}", shard.file, shard_name(shard_index)),
            (f"size_bytes of {shard.file}", shard.size_bytes, size_bytes),
            (f"documents of {shard.file}", 0 < shard.num_documents <= shard.num_tokens, True),
        ]
    return [(f"{what}: {found}", f"{what}: {expected}") for what, found, expected in pairs]


def _content_sha256(fields: dict[str, Any]) -> str:
    return sha256_bytes(_spell(fields))


def _spell(fields: dict[str, Any]) -> bytes:
    text = json.dumps(fields, indent=2, ensure_ascii=True, allow_nan=False)
    return text.encode("ascii") + b"\n"


def _damaged(id: str, path: Path, found: str, expected: str) -> DamagedFile:
    return DamagedFile(
        id,
        path,
        found=found,
        expected=expected,
        fix="encode the corpus again: apr tokenize encode-corpus",
    )
