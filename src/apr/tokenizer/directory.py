"""A tokenizer directory: tokenizer.json is the single source, the rest must agree with it.

Hugging Face spreads one tokenizer over several files, and libraries differ in which one they
believe. Here tokenizer.json decides; a sibling that adds or contradicts a token is refused.
Our own manifest.json adds what tokenizer.json cannot say: which token separates documents.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apr.errors import DamagedFile, PathNotFound, Refusal
from apr.files import (
    atomic_directory,
    read_bytes,
    read_json,
    require_absent,
    require_replaceable,
    sha256_bytes,
    write_bytes,
    write_json,
)
from apr.tokenizer.definition import SIZE_LIMIT_BYTES, Definition

_OUR_FILES = r"(tokenizer|tokenizer_config|vocab|manifest)\.json|merges\.txt"
_NAMED_TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
    "sep_token",
    "cls_token",
    "mask_token",
)


class Training(BaseModel):
    """What a tokenizer was learned from."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    vocab_size: int
    """The size that was asked for; a small corpus may yield fewer pieces."""
    min_frequency: int
    normalization: Literal["none", "nfc"]
    num_documents: int
    text_bytes: int


class TokenizerManifest(BaseModel):
    """manifest.json of a tokenizer directory that apr wrote."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: Literal["apr-tokenizer-v1"] = Field(alias="schema")
    tokenizer_sha256: str
    fingerprint: str
    vocab_size: int
    merges_count: int
    eos_token: str | None
    eos_token_id: int | None
    training: Training | None


@dataclass(frozen=True)
class Declaration:
    """What stands beside a tokenizer.json."""

    eos_token: str | None = None
    """The document separator, from our manifest or from the user."""
    config_eos_token: str | None = None
    """The eos_token of tokenizer_config.json, often a chat turn's end: shown, never used."""
    training: Training | None = None

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

    Refuses: files.exists, files.foreign-content.
    """
    require_absent(directory, overwrite=overwrite)
    require_replaceable(directory, names=_OUR_FILES, what="a tokenizer")


def read_siblings(directory: Path, definition: Definition, *, json_bytes: bytes) -> Declaration:
    """What the files beside tokenizer.json declare, once they are known to agree with it.

    Refuses: tokenizer.sibling-disagrees, tokenizer.sibling-damaged, tokenizer.manifest-mismatch.
    """
    config = _read_object(directory / "tokenizer_config.json")
    special_tokens = _read_object(directory / "special_tokens_map.json")
    ids = definition.ids
    _require_named_tokens(directory / "tokenizer_config.json", config, ids)
    _require_named_tokens(directory / "special_tokens_map.json", special_tokens, ids)
    _require_added_tokens_decoder(directory / "tokenizer_config.json", config, ids)
    _require_ids(
        directory / "added_tokens.json", _read_object(directory / "added_tokens.json"), ids
    )
    _require_same_vocab(directory / "vocab.json", definition)
    _require_same_merges(directory / "merges.txt", definition)
    manifest = _read_manifest(directory / "manifest.json", definition, json_bytes)
    return Declaration(
        eos_token=manifest.eos_token if manifest else None,
        config_eos_token=_content(config.get("eos_token")),
        training=manifest.training if manifest else None,
    )


def write_directory(
    directory: Path,
    definition: Definition,
    *,
    json_bytes: bytes,
    eos_token: str | None,
    eos_token_id: int | None,
    training: Training | None,
    overwrite: bool,
) -> None:
    """Write the five files of a tokenizer directory, all or none.

    Refuses: files.exists, files.foreign-content, files.io-failed.
    Writes: tokenizer.json, tokenizer_config.json, vocab.json, merges.txt, manifest.json.
    """
    manifest = TokenizerManifest(
        schema="apr-tokenizer-v1",
        tokenizer_sha256=sha256_bytes(json_bytes),
        fingerprint=definition.fingerprint,
        vocab_size=len(definition.vocabulary),
        merges_count=len(definition.merges),
        eos_token=eos_token,
        eos_token_id=eos_token_id,
        training=training,
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": eos_token,
        "clean_up_tokenization_spaces": False,
    }
    merges = "".join(f"{left} {right}\n" for left, right in definition.merges)
    require_writable(directory, overwrite=overwrite)
    with atomic_directory(directory, overwrite=overwrite) as staged:
        write_bytes(staged / "tokenizer.json", json_bytes)
        write_json(staged / "tokenizer_config.json", config)
        write_json(staged / "vocab.json", definition.ids)
        write_bytes(staged / "merges.txt", f"#version: 0.2\n{merges}".encode())
        write_json(staged / "manifest.json", manifest.model_dump(by_alias=True))


def _read_manifest(
    path: Path, definition: Definition, json_bytes: bytes
) -> TokenizerManifest | None:
    value = _read_object(path)
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
    found = (sha256_bytes(json_bytes), definition.fingerprint)
    if found != (manifest.tokenizer_sha256, manifest.fingerprint):
        raise DamagedFile(
            "tokenizer.manifest-mismatch",
            path.with_name("tokenizer.json"),
            found=f"sha256 {found[0]}, fingerprint {found[1]}",
            expected=f"sha256 {manifest.tokenizer_sha256}, fingerprint {manifest.fingerprint}",
            fix="restore tokenizer.json, or write the tokenizer directory again",
        )
    return manifest


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is no such file."""
    if not path.exists():
        return {}
    what = "a JSON object"
    value = read_json(path, limit_bytes=SIZE_LIMIT_BYTES, id="tokenizer.sibling-damaged", what=what)
    if isinstance(value, dict):
        return value
    raise DamagedFile(
        "tokenizer.sibling-damaged",
        path,
        found=type(value).__name__,
        expected=what,
        fix="restore the file from its source",
    )


def _content(token: Any) -> str | None:
    """The text of a token that is written as a string or as an object."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _require_named_tokens(path: Path, config: dict[str, Any], ids: dict[str, int]) -> None:
    named = [config.get(name) for name in _NAMED_TOKENS]
    additional = config.get("additional_special_tokens")
    if isinstance(additional, list):
        named += additional
    for token in map(_content, named):
        if token is not None and token not in ids:
            _refuse_sibling(path, f"the token {token!r}, which tokenizer.json lacks")


def _require_added_tokens_decoder(path: Path, config: dict[str, Any], ids: dict[str, int]) -> None:
    decoder = config.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        _refuse_sibling(path, "an added_tokens_decoder that is no object")
    _require_ids(path, {_content(token): _number(id) for id, token in decoder.items()}, ids)


def _number(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _require_ids(path: Path, claimed: dict[Any, Any], ids: dict[str, int]) -> None:
    for piece, id in claimed.items():
        if ids.get(piece) != id:
            _refuse_sibling(path, f"{piece!r} with id {id}; tokenizer.json says {ids.get(piece)}")


def _require_same_vocab(path: Path, definition: Definition) -> None:
    vocab = _read_object(path)
    if vocab and vocab not in (definition.vocab, definition.ids):
        _refuse_sibling(path, f"{len(vocab)} entries that differ from tokenizer.json's")


def _require_same_merges(path: Path, definition: Definition) -> None:
    if not path.exists():
        return
    data = read_bytes(
        path, limit_bytes=SIZE_LIMIT_BYTES, id="tokenizer.sibling-damaged", what="merges.txt"
    )
    lines = data.decode("utf-8", errors="replace").split("\n")
    merges = [line for line in lines if line and not line.startswith("#version")]
    if merges != [f"{left} {right}" for left, right in definition.merges]:
        _refuse_sibling(path, f"{len(merges)} merges that differ from tokenizer.json's")


def _refuse_sibling(path: Path, found: str) -> None:
    raise Refusal(
        "tokenizer.sibling-disagrees",
        path,
        found=found,
        expected="the same tokens as tokenizer.json, which is the single source",
        fix="add the token to tokenizer.json, or delete the file that disagrees",
    )
