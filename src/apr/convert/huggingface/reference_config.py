"""A second reading of config.json, for the forward pass that judges a conversion.

It shares no line with `config`: a mistake in one of the two then shows as a difference between
what they compute, and not as agreement. It refuses nothing; the file was checked before.
"""

from collections.abc import Mapping
from typing import Any

from apr.convert.source import ReferenceConfig


def reference_config(raw: Mapping[str, Any]) -> ReferenceConfig:
    """What a forward pass must know, straight from the object of a config.json."""
    rope: dict[str, Any] = {"rope_theta": raw.get("rope_theta")}
    for spelling in ("rope_scaling", "rope_parameters"):
        stated: Mapping[str, Any] = raw.get(spelling) or {}
        rope.update({key: value for key, value in stated.items() if value is not None})
    is_stretched = "llama3" in (rope.get("rope_type"), rope.get("type"))
    numbers = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    heads = raw["num_attention_heads"]
    return ReferenceConfig(
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        num_hidden_layers=raw["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=raw.get("num_key_value_heads") or heads,
        head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
        rms_norm_eps=float(raw["rms_norm_eps"]),
        # What Llama's class takes where a file from its first days has no theta.
        rope_theta=float(rope["rope_theta"] or 1e4),
        rope_scaling={key: float(rope[key]) for key in numbers} if is_stretched else None,
        rotary_pairs="halves",
    )
