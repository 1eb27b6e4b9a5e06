"""Why a set of tensors is not the one that an architecture asks for, in words.

A refusal that lists 72 unexpected names helps nobody; one that says "biases of Qwen2" does.
"""

import re
from collections.abc import Collection, Mapping

from apr.architecture import Architecture

_BIAS = re.compile(r"\.self_attn\.[qkv]_proj\.bias$")
_HEAD_NORM = re.compile(r"\.self_attn\.[qk]_norm\.weight$")
_LAYER = re.compile(r"^model\.layers\.(\d+)\.")

# What a name gives away, in the order in which it is believed.
_TELLTALES: tuple[tuple[str, str], ...] = (
    (r"lora_[AB]|\.lora_|modules_to_save", "adapter weights; join them with their base model"),
    (
        r"\.(qweight|qzeros|scales|weight_scale(_inv)?|absmax|quant_state\S*|SCB)$",
        "quantised weights; get the model as it was before",
    ),
    (r"experts\.|\.router\.|block_sparse_moe", "the experts of a mixture of experts"),
    (r"vision|visual\.|image_|mm_projector|multi_modal", "the parts of a model that sees images"),
    (
        r"qkv_proj|query_key_value|c_attn|W_pack|Wqkv|attention\.wq_wk_wv",
        "query, key and value projections fused into one tensor, as other libraries keep them",
    ),
    (r"gate_up_proj|fc1_fc2|\.w12\.", "gate and up projections fused into one tensor"),
    (r"^(tok_embeddings|layers\.\d+\.attention\.w[qkvo])", "Meta's names, not Hugging Face's"),
    (r"^blk\.\d+\.", "GGUF's names, not Hugging Face's"),
    (r"^transformer\.h\.|\.attn\.", "the names of another family"),
)


def cause_of_names(
    architecture: Architecture, *, missing: Collection[str], unexpected: Collection[str]
) -> str:
    """What most likely explains the names that are missing and the ones that nobody asked for."""
    family = architecture.model_type
    for pattern, cause in _TELLTALES:
        if any(re.search(pattern, name) for name in unexpected):
            return cause
    if prefix := _prefix(missing, unexpected):
        return prefix
    if any(map(_HEAD_NORM.search, unexpected)):
        return f"query and key norms of Qwen3 in a model whose config says {family}"
    if any(map(_HEAD_NORM.search, missing)):
        return "no query and key norms, as Llama has none, in a model whose config says qwen3"
    if any(map(_BIAS.search, unexpected)):
        return f"biases of Qwen2 in a model whose config says {family}"
    if biases := [name for name in missing if _BIAS.search(name)]:
        if len(biases) == 3 * architecture.num_hidden_layers:
            return "no biases, as Llama has none, in a model whose config says qwen2"
        return f"{len(biases)} of its {3 * architecture.num_hidden_layers} biases lost"
    return _depth(architecture, missing, unexpected) or "a tensor lost, or one too many"


def cause_of_shape(architecture: Architecture, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What most likely explains the first shape that differs."""
    expected = architecture.parameter_shapes()
    name = next(name for name, shape in expected.items() if shapes[name] != shape)
    found, wanted = shapes[name], expected[name]
    if len(found) != len(wanted):
        return f"{len(found)} dimensions instead of {len(wanted)}"
    width = shapes["model.embed_tokens.weight"][-1]
    if width != architecture.hidden_size and found != wanted[::-1]:
        return f"tensors of hidden_size {width}, the config says {architecture.hidden_size}"
    if found == wanted[::-1]:
        return f"{_kind(name)} is stored transposed"
    if name in ("model.embed_tokens.weight", "lm_head.weight"):
        return _vocabulary(found[0], wanted[0], name)
    if ".self_attn." in name:
        return _heads(architecture, shapes, name)
    if any(part in name for part in ("gate_proj", "up_proj", "down_proj")):
        rows = found[1] if "down_proj" in name else found[0]
        return (
            f"tensors of intermediate_size {rows}, the config says {architecture.intermediate_size}"
        )
    return "a tensor of another model"


def _prefix(missing: Collection[str], unexpected: Collection[str]) -> str | None:
    """A word too many, or too few, before every name."""
    if not missing or not unexpected:
        return None
    bare = {name.removeprefix("model.") for name in missing}
    if bare <= {*unexpected, "lm_head.weight"} and "embed_tokens.weight" in unexpected:
        return "names without 'model.' in front: the base model, saved without its head"
    shortest = min(unexpected, key=len)
    for name in missing:
        if shortest.endswith(name):
            prefix = shortest.removesuffix(name)
            if all(f"{prefix}{each}" in unexpected for each in missing):
                return f"{prefix!r} in front of every name"
    return None


def _depth(
    architecture: Architecture, missing: Collection[str], unexpected: Collection[str]
) -> str | None:
    layers = architecture.num_hidden_layers
    beyond = [int(found[1]) for found in map(_LAYER.match, unexpected) if found]
    if beyond and max(beyond) >= layers:
        return f"{max(beyond) + 1} layers, the config says {layers}"
    lost = {int(found[1]) for found in map(_LAYER.match, missing) if found}
    norms = {name for name in missing if name.endswith(".input_layernorm.weight")}
    if lost and len(norms) == len(lost) and min(lost) == layers - len(lost):
        return f"{min(lost)} layers, the config says {layers}"
    return None


def _kind(name: str) -> str:
    return name.split(".")[-2]


def _vocabulary(found: int, wanted: int, name: str) -> str:
    difference = abs(found - wanted)
    rows = "one row" if difference == 1 else f"{difference} rows"
    more = "more" if found > wanted else "less"
    return f"{_kind(name)} has {rows} {more} than the vocab_size of the config"


def _heads(architecture: Architecture, shapes: Mapping[str, tuple[int, ...]], name: str) -> str:
    at = f"model.layers.{name.split('.')[2]}.self_attn."
    query, key = (shapes[f"{at}{part}.weight"][0] for part in ("q_proj", "k_proj"))
    heads, groups = architecture.num_attention_heads, architecture.num_key_value_heads
    width = architecture.head_dim
    if query % heads == 0 and key % groups == 0 and query // heads == key // groups != width:
        return f"heads of head_dim {query // heads}, the config says {width}"
    if query != heads * width and query % width == 0 and key == groups * width:
        return f"{query // width} query heads, num_attention_heads of the config says {heads}"
    if key != groups * width and key % width == 0 and query == heads * width:
        return f"{key // width} key/value heads, num_key_value_heads of the config says {groups}"
    return f"projections of {query} and {key} rows, for {heads} and {groups} heads of {width}"
