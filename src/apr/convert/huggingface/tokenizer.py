"""A tokenizer as Hugging Face's libraries find it in a model directory.

tokenizer.json goes out byte for byte; tokenizer_config.json only names the class that reads it as
it is, and the control tokens. None of Hugging Face's files can say which token stands between
documents, as what they call eos_token is a chat's end of turn in many: apr's own manifest says it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apr.architecture import Architecture
from apr.errors import Refusal
from apr.files import write_bytes, write_json
from apr.tokenizer import directory as tokenizer_directory
from apr.tokenizer.definition import Definition
from apr.tokenizer.tokenizer import Tokenizer

_QWEN2_SPLIT = {
    "type": "Split",
    "pattern": {
        "Regex": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    },
    "behavior": "Isolated",
    "invert": False,
}
_QWEN2_END = "<|endoftext|>"
# Settings that Qwen2's class fixes; left out, false and empty mean the same.
_QWEN2_UNSET = (
    "dropout",
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "byte_fallback",
    "ignore_merges",
)


def require_hf_reads_tokenizer(architecture: Architecture, tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer that AutoTokenizer would read as another one, without a word.

    For a config of `qwen2`, transformers 5 builds Qwen2's own tokenizer from the vocabulary and the
    merges, whatever class is named, and passes over how tokenizer.json splits and normalizes.

    Refuses: export.tokenizer-misread.
    Source: MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS of transformers, models/auto.
    """
    if architecture.model_type != "qwen2" or _is_qwen2s(tokenizer.definition):
        return
    raise Refusal(
        "export.tokenizer-misread",
        tokenizer.where,
        found="a tokenizer that splits or normalizes text in another way than Qwen2's",
        expected="Qwen2's: AutoTokenizer of transformers 5 takes every qwen2 model to have it",
        fix="export it with --without-tokenizer, and keep the tokenizer in a directory of its own; "
        "there AutoTokenizer reads it as it is",
    )


def _is_qwen2s(definition: Definition) -> bool:
    return (
        definition.normalizer == {"type": "NFC"}
        and definition.pre_tokenizer in [_qwen2_pre_tokenizer(trim) for trim in (True, False)]
        and not any(definition.settings.get(name) for name in _QWEN2_UNSET)
        # The class adds this token where it is missing, and with it an id.
        and any(token.content == _QWEN2_END for token in definition.added_tokens)
    )


def _qwen2_pre_tokenizer(trim_offsets: bool) -> dict[str, Any]:
    """Offsets are trimmed or not, and ids are the same."""
    by_bytes = {"add_prefix_space": False, "trim_offsets": trim_offsets, "use_regex": False}
    return {
        "type": "Sequence",
        "pretokenizers": [_QWEN2_SPLIT, {"type": "ByteLevel", **by_bytes}],
    }


def write_hf_tokenizer(directory: Path, tokenizer: Tokenizer, config: Mapping[str, Any]) -> None:
    """Write tokenizer.json and tokenizer_config.json beside a config.json.

    Refuses: files.io-failed.
    Writes: tokenizer.json, tokenizer_config.json; manifest.json where a separator is declared.
    """
    write_bytes(directory / "tokenizer.json", tokenizer.json_bytes)
    named = {
        "bos_token": _token(tokenizer, config["bos_token_id"]),
        "eos_token": tokenizer.declaration.config_eos_token
        or tokenizer.eos_token
        or _token(tokenizer, config["eos_token_id"]),
        "pad_token": _token(tokenizer, config["pad_token_id"]),
        "unk_token": tokenizer.definition.unk_token,
    }
    # A token named here becomes a control token; an ordinary piece must not become one.
    control = {token.content for token in tokenizer.definition.added_tokens}
    write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": config["max_position_embeddings"],
        }
        | {key: token for key, token in named.items() if token in control},
    )
    if tokenizer.eos_token is not None:
        tokenizer_directory.write_manifest(
            directory,
            tokenizer.definition,
            json_bytes=tokenizer.json_bytes,
            declaration=tokenizer.declaration,
        )


def _token(tokenizer: Tokenizer, id: Any) -> str | None:
    """The token of a recorded id; of several ids none is the one."""
    is_id = type(id) is int and 0 <= id < tokenizer.vocab_size
    return tokenizer.vocabulary[id] if is_id else None
