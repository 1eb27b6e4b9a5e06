"""The identity of a tokenizer: one hash of everything that decides ids, and of nothing else.

The same tokenizer is written in many ways: merges as strings or as pairs, defaults left out,
JSON indented or not. All of them become one spelling here. What only moves offsets, cuts or
pads, or builds a chat prompt, is left out.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from apr.files import sha256_bytes

# What the `tokenizers` library assumes where a model leaves a field out.
_MODEL_DEFAULTS: dict[str, Any] = {
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}


def fingerprint(
    *,
    normalizer: Mapping[str, Any] | None,
    pre_tokenizer: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
    vocab: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    added_tokens: Sequence[Mapping[str, Any]],
) -> str:
    """Hex sha256 of the canonical content; `settings` are the model's other fields.

    A change to what is hashed raises `apr.tokenizer.checks.VERSION`.
    """
    deciding = {name: settings.get(name) or default for name, default in _MODEL_DEFAULTS.items()}
    canonical = {
        "normalizer": _canonical(normalizer),
        "pre_tokenizer": _canonical(pre_tokenizer),
        "model": deciding | {"type": "BPE", "vocab": vocab, "merges": merges},
        "added_tokens": sorted(added_tokens, key=lambda token: token["id"]),
    }
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return sha256_bytes(text.encode("ascii"))


def _canonical(component: Any) -> Any:
    """A component with defaults written out, without what changes offsets only."""
    if isinstance(component, list):
        return [_canonical(part) for part in component]
    if not isinstance(component, dict):
        return component
    result = {key: _canonical(part) for key, part in component.items()}
    if result.get("type") == "ByteLevel":
        result.pop("trim_offsets", None)
        result.setdefault("use_regex", True)
    return result
