"""Why two sides of a proof differ, as far as their configurations and tensors can say."""

from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from apr.architecture import Architecture
from apr.convert.reference import Reference
from apr.convert.weights import Weights

_TENSORS_OF = {
    "embedding": ("model.embed_tokens.weight",),
    "input norm": ("input_layernorm.weight",),
    "queries": ("self_attn.q_proj.weight", "self_attn.q_proj.bias", "self_attn.q_norm.weight"),
    "keys": ("self_attn.k_proj.weight", "self_attn.k_proj.bias", "self_attn.k_norm.weight"),
    "values": ("self_attn.v_proj.weight", "self_attn.v_proj.bias"),
    "attention output": ("self_attn.o_proj.weight",),
    "norm after attention": ("post_attention_layernorm.weight",),
    "feed-forward inside": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "feed-forward": ("mlp.down_proj.weight",),
    "final norm": ("model.norm.weight",),
    "logits": ("lm_head.weight", "model.embed_tokens.weight"),
}


def differing_fields(architecture: Architecture, reference: Reference) -> list[str]:
    """Numbers that the conversion and the source's own configuration disagree on."""
    config = reference.config
    found = []
    for name in (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "rms_norm_eps",
        "rope_theta",
    ):
        ours, theirs = getattr(architecture, name), getattr(config, name)
        # Containers and GGUF keep numbers in single precision; JSON in double.
        if np.float32(ours) != np.float32(theirs):
            found.append(f"{name} is {ours:g}, the source says {theirs:g}")
    if config.rope_factors is None:
        ours = architecture.rope_scaling and asdict(architecture.rope_scaling)
        theirs = config.rope_scaling and dict(config.rope_scaling)
        if ours != theirs:
            found.append(f"rope_scaling is {ours}, the source says {theirs}")
    return found


def differing_tensors(
    operation: str, layer: int | None, ours: Weights, reference: Reference
) -> Iterator[str]:
    """Tensors that an operation computes with, and that are not the source's."""
    theirs, prefix = reference.weights, "" if layer is None else f"model.layers.{layer}."
    for suffix in _TENSORS_OF.get(operation, ()):
        tensor = prefix + suffix
        if tensor not in ours and tensor not in theirs:
            continue
        if tensor not in ours or tensor not in theirs:
            holder = "source" if tensor in theirs else "conversion"
            yield f"only the {holder} has {tensor}"
        elif not _same_values(ours, theirs, tensor, reference):
            yield f"{tensor} is not the source's"


def _same_values(ours: Weights, theirs: Weights, name: str, reference: Reference) -> bool:
    """Whether two sides hold the same numbers, in whichever order a source has its rows."""
    if ours.tensors[name].shape != theirs.tensors[name].shape:
        return False
    if name.endswith(("q_proj.weight", "k_proj.weight", "q_proj.bias", "k_proj.bias")):
        return np.array_equal(ours.whole(name), reference.in_halves(theirs.whole(name)))
    if len(ours.tensors[name].shape) == 2:
        pairs = zip(ours.row_blocks(name), theirs.row_blocks(name), strict=True)
        return all(np.array_equal(a, b) for (_, a), (_, b) in pairs)
    return np.array_equal(ours.whole(name), theirs.whole(name))
