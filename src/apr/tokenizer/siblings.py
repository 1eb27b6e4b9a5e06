"""Hugging Face spreads one tokenizer over several files; here tokenizer.json decides.

Libraries differ in which file they believe: some add the tokens that only
tokenizer_config.json names, some miss them. A file that adds or contradicts a token is refused,
so that no two readers of a directory see two tokenizers.
"""

from pathlib import Path
from typing import Any, NoReturn

from apr.errors import DamagedFile, Refusal
from apr.files import read_bytes, read_json
from apr.tokenizer.definition import SIZE_LIMIT_BYTES, Definition

_NAMED_TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
    "sep_token",
    "cls_token",
    "mask_token",
)


def require_siblings_agree(directory: Path, definition: Definition) -> str | None:
    """Compare every file beside tokenizer.json with it; return the eos_token they name.

    Refuses: tokenizer.sibling-disagrees, tokenizer.sibling-damaged.
    """
    ids = definition.ids
    config_path = directory / "tokenizer_config.json"
    config = read_object(config_path)
    _require_named_tokens(config_path, config, ids)
    _require_added_tokens_decoder(config_path, config, ids)
    special_tokens_path = directory / "special_tokens_map.json"
    _require_named_tokens(special_tokens_path, read_object(special_tokens_path), ids)
    added_tokens_path = directory / "added_tokens.json"
    _require_ids(added_tokens_path, read_object(added_tokens_path), ids)
    _require_same_vocab(directory / "vocab.json", definition)
    _require_same_merges(directory / "merges.txt", definition)
    return _content(config.get("eos_token"))


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is no such file.

    Refuses: tokenizer.sibling-damaged.
    """
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
    vocab = read_object(path)
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
    if merges != definition.merges:
        _refuse_sibling(path, f"{len(merges)} merges that differ from tokenizer.json's")


def _refuse_sibling(path: Path, found: str) -> NoReturn:
    raise Refusal(
        "tokenizer.sibling-disagrees",
        path,
        found=found,
        expected="the same tokens as tokenizer.json, which is the single source",
        fix="add the token to tokenizer.json, or delete the file that disagrees",
    )
