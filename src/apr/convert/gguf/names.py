"""The only table between Hugging Face's tensor names and GGUF's."""

import re

ROPE_FACTORS = "rope_freqs.weight"
"""Divisors of the rotary frequencies, one per pair; Hugging Face computes them instead."""

_WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_IN_BLOCK = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}
_WHOLE_BACK = {gguf: hf for hf, gguf in _WHOLE.items()}
_IN_BLOCK_BACK = {gguf: hf for hf, gguf in _IN_BLOCK.items()}

_HF_BLOCK = re.compile(r"model\.layers\.(0|[1-9][0-9]*)\.(.+)", re.ASCII)
_GGUF_BLOCK = re.compile(r"blk\.(0|[1-9][0-9]*)\.(.+)", re.ASCII)


def to_gguf(name: str) -> str | None:
    """GGUF's name of a tensor that Hugging Face calls `name`, if the table has it."""
    if match := _HF_BLOCK.fullmatch(name):
        inner = _IN_BLOCK.get(match[2])
        return None if inner is None else f"blk.{match[1]}.{inner}"
    return _WHOLE.get(name)


def to_hf(name: str) -> str | None:
    """Hugging Face's name of a tensor that GGUF calls `name`, if the table has it."""
    if match := _GGUF_BLOCK.fullmatch(name):
        inner = _IN_BLOCK_BACK.get(match[2])
        return None if inner is None else f"model.layers.{match[1]}.{inner}"
    return _WHOLE_BACK.get(name)
