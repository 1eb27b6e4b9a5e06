"""Which tokenizers the fast encoder may be tried on: those built only of parts known to agree.

A closed list, not a list of known faults: what is not named here, down to a single field, goes
to the reference encoder. Being listed is not enough either; `apr.tokenizer.choice` compares.
"""

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import pre_tokenizers

from apr.tokenizer.definition import Definition

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")
# The fast encoder has code of its own for these. Other patterns go through PCRE2, which takes
# U+180E for white space; GPT-2's does when it stands in a Split, and so is not here.
_PATTERNS = (_QWEN2, _LLAMA3)

_SHOWN_CHARACTERS = 200
_BYTE_CHARACTERS = frozenset(pre_tokenizers.ByteLevel.alphabet())


def why_not_allowed(definition: Definition) -> str | None:
    """The first component that is not on the list, or None when all of them are."""
    return (
        _why_not_normalizer(definition.normalizer)
        or _why_not_pre_tokenizer(definition.pre_tokenizer)
        or _why_not_model(definition)
    )


def _why_not_normalizer(normalizer: Mapping[str, Any] | None) -> str | None:
    if normalizer is None or normalizer == {"type": "NFC"}:
        return None
    return f"normalizer {_describe(normalizer)}"


def _why_not_pre_tokenizer(component: Mapping[str, Any] | None) -> str | None:
    parts = [component]
    if component is not None and component.get("type") == "Sequence":
        parts = component.get("pretokenizers")
    match parts:
        case [words] if _is_byte_level(words, use_regex=True):
            return None
        case [split, bytes_] if _is_known_split(split) and _is_byte_level(bytes_, use_regex=False):
            return None
        case [digits, words] if _is_digits(digits) and _is_byte_level(words, use_regex=True):
            return None
        case _:
            return f"pre_tokenizer {_describe(component)}"


def _is_byte_level(part: Any, *, use_regex: bool) -> bool:
    if not isinstance(part, dict):
        return False
    # Offsets are not used, and files from before the field was there mean true.
    fields = {"use_regex": True} | {key: part[key] for key in part if key != "trim_offsets"}
    return fields == {"type": "ByteLevel", "add_prefix_space": False, "use_regex": use_regex}


def _is_known_split(part: Any) -> bool:
    known = ({"Regex": pattern} for pattern in _PATTERNS)
    fields = {"type": "Split", "behavior": "Isolated", "invert": False}
    return any(part == fields | {"pattern": pattern} for pattern in known)


def _is_digits(part: Any) -> bool:
    return part == {"type": "Digits", "individual_digits": True}


def _why_not_model(definition: Definition) -> str | None:
    if definition.byte_fallback:
        return "model with byte_fallback"
    if definition.unk_token is not None:
        return f"model with unk_token {definition.unk_token!r}"
    if definition.has_affixes:
        return "model whose pieces carry prefixes or suffixes"
    if not definition.vocab.keys() >= _BYTE_CHARACTERS:
        return "model without a piece for every byte"
    if len(set(definition.merges)) != len(definition.merges):
        return "model with a repeated merge"
    return None


def _describe(component: Any) -> str:
    """The component on one short line, for a record."""
    text = json.dumps(component)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
