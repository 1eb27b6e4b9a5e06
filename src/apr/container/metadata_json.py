"""Strict reading of a container's JSON: one value per key, under the one spelling we write.

The Rust serving crate knows several names for one field. When two of them meet in one file,
even if one is null, it drops ALL metadata without a word; core meanwhile sees only its own name.
So aliases are moved into the named key on reading, and two values for one field are refused.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from apr.errors import DamagedFile
from apr.files import parse_json

# Four times what the Rust tools declare and do not enforce; parsing takes up to 25 times as much
# memory, so this bounds what a hostile file can cost.
METADATA_LIMIT_BYTES = 64 << 20

# serde_json, which the Rust tools read with, gives up one level further down.
NESTING_LIMIT = 127

ALIASES: dict[str, tuple[str, ...]] = {
    "hidden_size": ("hidden_dim", "d_model", "n_embd"),
    "num_layers": ("n_layers", "num_hidden_layers", "n_layer"),
    "num_heads": ("n_heads", "num_attention_heads", "n_head"),
    "num_kv_heads": ("n_kv_heads", "num_key_value_heads"),
    "vocab_size": ("n_vocab",),
    "intermediate_size": ("ffn_dim", "intermediate_dim", "n_inner"),
    "max_position_embeddings": ("max_seq_len", "context_length", "n_ctx"),
    "rms_norm_eps": ("layer_norm_eps", "norm_eps"),
}


def read_object(data: bytes, *, where: str) -> dict[str, Any]:
    """One JSON object with unique keys, finite numbers and bounded nesting.

    Refuses: container.metadata-not-json.
    """
    try:
        value = parse_json(data)
    except ValueError as err:
        raise _not_json(where, str(err)) from err
    if not isinstance(value, dict):
        raise _not_json(where, f"JSON, but a {type(value).__name__}")
    if _is_nested_deeper(value, NESTING_LIMIT):
        raise _not_json(where, f"more than {NESTING_LIMIT} levels of nesting")
    return cast(dict[str, Any], value)


def doubled_spellings(raw: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Groups of keys in `raw` that name the same field, null or not."""
    groups = (
        tuple(key for key in (name, *aliases) if key in raw) for name, aliases in ALIASES.items()
    )
    return [group for group in groups if len(group) > 1]


def with_named_keys(raw: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """The object with every alias moved into the key it stands for.

    Refuses: container.metadata-alias, when two spellings hold different values.
    """
    moved = dict(raw)
    for name, aliases in ALIASES.items():
        spelled = {key: moved[key] for key in (name, *aliases) if moved.get(key) is not None}
        # By their text, because 2 == 2.0 == True.
        if len({repr(value) for value in spelled.values()}) > 1:
            raise DamagedFile(
                "container.metadata-alias",
                where,
                found=", ".join(f"{key}={value!r:.40}" for key, value in spelled.items()),
                expected=f"one value for {name}",
                fix="write the file again from its source, with one spelling",
            )
        for alias in aliases:
            moved.pop(alias, None)
        if spelled:
            moved[name] = next(iter(spelled.values()))
    return moved


def _not_json(where: str, found: str) -> DamagedFile:
    return DamagedFile(
        "container.metadata-not-json",
        where,
        found=found,
        expected="one strict JSON object: unique keys, finite numbers, UTF-8",
        fix="the metadata is damaged; get the file again from its source",
    )


def _is_nested_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [child for node in level for child in _containers_in(node)]
        if not level:
            return False
    return True


def _containers_in(node: Any) -> list[Any]:
    children = cast(Iterable[Any], node.values() if isinstance(node, dict) else node)
    return [child for child in children if isinstance(child, dict | list)]
