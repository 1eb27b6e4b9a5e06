"""A tokenizer directory: tokenizer.json, the files other tools expect, and our manifest.json.

The manifest adds what tokenizer.json cannot say: which token separates documents, and what the
tokenizer was learned from.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apr.errors import DamagedFile, PathNotFound, Refusal
from apr.files import (
    atomic_directory,
    require_absent,
    require_replaceable,
    require_writable_place,
    sha256_bytes,
    write_bytes,
    write_json,
)
from apr.tokenizer.definition import Definition
from apr.tokenizer.siblings import read_object, require_siblings_agree

_OUR_FILES = r"(tokenizer|tokenizer_config|vocab|manifest)\.json|merges\.txt"


class Training(BaseModel):
    """What a tokenizer was learned from."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    vocab_size: int
    """The size that was asked for; a small corpus may yield fewer pieces."""
    min_frequency: int
    normalization: Literal["none", "nfc"]
    num_documents: int
    text_bytes: int


class Import(BaseModel):
    """Where a tokenizer came from, and what was written of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    file: str
    """The name of the file it was read from; its bytes are tokenizer.json's."""
    includes_added_tokens: bool
    """Whether vocab.json holds the added tokens too."""
    vocab_size_without_added_tokens: int
    vocab_size_with_added_tokens: int
    config_eos_token: str | None
    """What tokenizer_config.json called eos_token, often a chat turn's end: shown, never used."""


class TokenizerManifest(BaseModel):
    """manifest.json of a tokenizer directory that apr wrote."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: Literal["apr-tokenizer-v1"] = Field(alias="schema")
    tokenizer_sha256: str
    fingerprint: str
    vocab_size: int
    """Entries of vocab.json."""
    merges_count: int
    eos_token: str | None
    eos_token_id: int | None
    training: Training | None
    imported: Import | None = None


@dataclass(frozen=True)
class Declaration:
    """What stands beside a tokenizer.json."""

    eos_token: str | None = None
    """The document separator, from our manifest or from the user."""
    config_eos_token: str | None = None
    """The eos_token of tokenizer_config.json, often a chat turn's end: shown, never used."""
    training: Training | None = None
    imported: Import | None = None

    def with_eos_token(self, eos_token: str | None) -> "Declaration":
        """The same with the user's separator, where there is one."""
        return self if eos_token is None else replace(self, eos_token=eos_token)


def require_tokenizer_json(directory: Path) -> Path:
    """The tokenizer.json of a directory.

    Refuses: tokenizer.json-missing.
    """
    path = directory / "tokenizer.json"
    if path.exists():
        return path
    raise PathNotFound(
        "tokenizer.json-missing",
        directory,
        found=", ".join(sorted(entry.name for entry in directory.iterdir())[:8]) or "nothing",
        expected="tokenizer.json (vocab.json and merges.txt alone do not say how text is split)",
        fix="name a directory with a tokenizer.json, or train one: apr tokenize train",
    )


def require_writable(directory: Path, *, overwrite: bool) -> None:
    """Refuse a target that holds something else, before any work is done for it.

    Refuses: files.exists, files.foreign-content, files.io-failed.
    """
    require_absent(directory, overwrite=overwrite)
    require_writable_place(directory)
    require_replaceable(directory, names=_OUR_FILES, what="a tokenizer")


def read_declaration(directory: Path, definition: Definition, *, json_bytes: bytes) -> Declaration:
    """What the files beside tokenizer.json declare, once they are known to agree with it.

    Refuses: tokenizer.sibling-disagrees, tokenizer.sibling-damaged, tokenizer.manifest-mismatch.
    """
    config_eos_token = require_siblings_agree(directory, definition)
    manifest = _read_manifest(directory / "manifest.json", definition, json_bytes)
    if manifest is None:
        return Declaration(config_eos_token=config_eos_token)
    if manifest.imported is not None and config_eos_token is None:
        config_eos_token = manifest.imported.config_eos_token
    return Declaration(
        eos_token=manifest.eos_token,
        config_eos_token=config_eos_token,
        training=manifest.training,
        imported=manifest.imported,
    )


def write_directory(
    directory: Path,
    definition: Definition,
    *,
    json_bytes: bytes,
    declaration: Declaration,
    overwrite: bool,
) -> None:
    """Write the five files of a tokenizer directory, all or none.

    Refuses: tokenizer.merge-not-a-line, files.exists, files.foreign-content, files.io-failed.
    Writes: tokenizer.json, tokenizer_config.json, vocab.json, merges.txt, manifest.json.
    """
    vocab = sorted(
        _listed_vocab(definition, declaration.imported).items(), key=lambda each: each[1]
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": declaration.eos_token,
        "clean_up_tokenization_spaces": False,
    }
    merges = _merges_text(definition, directory)
    require_writable(directory, overwrite=overwrite)
    with atomic_directory(directory, overwrite=overwrite) as staged:
        write_bytes(staged / "tokenizer.json", json_bytes)
        write_json(staged / "tokenizer_config.json", config)
        write_json(staged / "vocab.json", dict(vocab))
        write_bytes(staged / "merges.txt", merges.encode())
        write_manifest(staged, definition, json_bytes=json_bytes, declaration=declaration)


def write_manifest(
    directory: Path, definition: Definition, *, json_bytes: bytes, declaration: Declaration
) -> None:
    """Write what tokenizer.json cannot say beside it, bound to its bytes.

    Refuses: files.io-failed.
    Writes: manifest.json.
    """
    eos_token, imported = declaration.eos_token, declaration.imported
    manifest = TokenizerManifest(
        schema="apr-tokenizer-v1",
        tokenizer_sha256=sha256_bytes(json_bytes),
        fingerprint=definition.fingerprint,
        vocab_size=len(_listed_vocab(definition, imported)),
        merges_count=len(definition.merges),
        eos_token=eos_token,
        eos_token_id=None if eos_token is None else definition.ids[eos_token],
        training=declaration.training,
        imported=imported,
    )
    write_json(directory / "manifest.json", manifest.model_dump(by_alias=True))


def _listed_vocab(definition: Definition, imported: Import | None) -> dict[str, int]:
    """The pieces that vocab.json lists."""
    lists_all = imported is None or imported.includes_added_tokens
    return definition.ids if lists_all else definition.vocab


def _merges_text(definition: Definition, directory: Path) -> str:
    """merges.txt: one merge per line, after a version line.

    Older readers of the file skip its first line without a look at it.
    """
    for rank, line in enumerate(definition.merges):
        if "\n" in line or "\r" in line or line.startswith("#version"):
            raise Refusal(
                "tokenizer.merge-not-a-line",
                directory / "merges.txt",
                found=f"merge {rank} would be the line {line!r}",
                expected="merges that every reader of merges.txt takes for one line",
                fix="use tokenizer.json by itself: --tokenizer takes the file too",
            )
    return "".join(f"{line}\n" for line in ["#version: 0.2", *definition.merges])


def _read_manifest(
    path: Path, definition: Definition, json_bytes: bytes
) -> TokenizerManifest | None:
    value = read_object(path)
    if value.get("schema") != "apr-tokenizer-v1":
        return None  # another tool's file of the same name
    try:
        manifest = TokenizerManifest.model_validate(value)
    except ValidationError as err:
        first = err.errors()[0]
        raise DamagedFile(
            "tokenizer.sibling-damaged",
            path,
            found=f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
            expected="the manifest apr wrote",
            fix="write the tokenizer directory again",
        ) from err
    for what, found, recorded in _facts(manifest, definition, json_bytes):
        if found != recorded:
            raise DamagedFile(
                "tokenizer.manifest-mismatch",
                path,
                found=f"{what} is {found}",
                expected=f"{what} {recorded}, as recorded",
                fix="restore tokenizer.json, or write the tokenizer directory again",
            )
    return manifest


def _facts(
    manifest: TokenizerManifest, definition: Definition, json_bytes: bytes
) -> list[tuple[str, object, object]]:
    """What the manifest says of tokenizer.json: a name, what is so, what is recorded."""
    imported = manifest.imported
    facts: list[tuple[str, object, object]] = [
        ("sha256 of tokenizer.json", sha256_bytes(json_bytes), manifest.tokenizer_sha256),
        ("fingerprint", definition.fingerprint, manifest.fingerprint),
        ("vocab_size", len(_listed_vocab(definition, imported)), manifest.vocab_size),
        ("merges_count", len(definition.merges), manifest.merges_count),
        ("eos_token_id", definition.ids.get(manifest.eos_token or ""), manifest.eos_token_id),
    ]
    if imported is not None:
        without, with_all = imported.vocab_size_without_added_tokens, len(definition.ids)
        facts += [
            ("vocab_size_without_added_tokens", len(definition.vocab), without),
            ("vocab_size_with_added_tokens", with_all, imported.vocab_size_with_added_tokens),
        ]
    return facts
