"""What the keys of a config.json mean: which change the mathematics, and which only stand there.

A key that is unknown and whose name smells of mathematics is refused. That costs the rare user a
look at a harmless key; the other way round costs a model that computes something else.
"""

import re
from typing import Any

READ = frozenset(
    {
        "model_type",
        "architectures",
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
        "rms_norm_eps",
        "tie_word_embeddings",
        "hidden_act",
        "rope_theta",
        "rope_scaling",
        "rope_parameters",
        "sliding_window",
        "use_sliding_window",
        "max_window_layers",
        "layer_types",
        "attention_bias",
    }
)
"""Keys that `config` reads and judges itself."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    # biases and norms
    "mlp_bias": (False,),
    "qkv_bias": (False,),
    "use_bias": (False,),
    "bias": (False,),
    "lm_head_bias": (False,),
    "no_bias": (True,),
    "use_qkv_bias": (False,),
    "use_qk_norm": (False,),
    "qk_norm": (False,),
    "qk_layernorm": (False,),
    "norm_type": ("rmsnorm", "rms_norm"),
    "layer_norm_eps": (),
    "layer_norm_epsilon": (),
    "norm_eps": (),
    "post_norm": (False,),
    "parallel_attn": (False,),
    "use_parallel_residual": (False,),
    "do_layer_norm_before": (),
    # positions
    "partial_rotary_factor": (1.0,),
    "rotary_pct": (1.0,),
    "rotary_dim": (),
    "rotary_emb_base": (),
    "rope_interleaved": (False,),
    "rope_interleave": (False,),
    "rope_local_base_freq": (),
    "rope_type": ("default",),
    "rope_dim": (),
    "use_rope": (True,),
    "no_rope_layers": (),
    "no_rope_layer_interval": (),
    "original_max_position_embeddings": (),
    "position_embedding_type": ("rope", "rotary", "rope_theta"),
    "alibi": (False,),
    "use_alibi": (False,),
    "use_dynamic_ntk": (False,),
    "use_logn_attn": (False,),
    # attention
    "attn_logit_softcapping": (),
    "final_logit_softcapping": (),
    "attention_chunk_size": (),
    "attention_sink": (),
    "clip_qkv": (),
    "query_pre_attn_scalar": (),
    "attn_scale": (),
    "attn_temperature_tuning": (False,),
    "softmax_scale": (),
    "multi_query": (False,),
    "new_decoder_architecture": (False,),
    "q_lora_rank": (),
    "kv_lora_rank": (),
    "cross_attention_layers": ([],),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (),
    "window_size": (),
    "attention_window": (),
    "local_attention": (),
    "hidden_activation": ("silu", "swish"),
    "activation_function": ("silu", "swish"),
    "mlp_hidden_act": ("silu", "swish"),
    # multipliers
    "logits_scaling": (1.0,),
    "logit_scale": (1.0,),
    "embedding_multiplier": (1.0,),
    "residual_multiplier": (1.0,),
    "lm_head_multiplier": (1.0,),
    "attention_multiplier": (),
    "scale_emb": (1.0,),
    "scale_depth": (),
    "dim_model_base": (),
    "scale_embedding": (False,),
    "normalize_embedding": (False,),
    # experts
    "num_experts": (0,),
    "num_local_experts": (0,),
    "n_routed_experts": (0,),
    "num_experts_per_tok": (0,),
    "moe_intermediate_size": (0,),
    "decoder_sparse_step": (),
    # how it is split or stored
    "pretraining_tp": (0, 1),
    "quantization_config": (),
    "quantization": (),
    "compression_config": (),
    "pruned_heads": ({},),
    "num_nextn_predict_layers": (0,),
    "embedding_size": (),
    "per_layer_config": (),
    "is_causal": (True,),
    "use_bidirectional_attention": (False,),
    "is_encoder_decoder": (False,),
    "type_vocab_size": (),
}
"""Keys of known mathematical meaning: the values, beside null, that leave Llama's mathematics as it
is."""

_HARMLESS = frozenset(
    {
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_flash_attn_2_enabled",
        "activation_dropout",
        "attention_dropout",
        "attention_implementation",
        "attention_probs_dropout_prob",
        "attn_implementation",
        "attn_pdrop",
        "chunk_size_feed_forward",
        "embed_dropout",
        "embedding_dropout",
        "ffn_dropout",
        "hidden_dropout",
        "hidden_dropout_prob",
        "layerdrop",
        "mlp_dropout",
        "output_attentions",
        "output_hidden_states",
        "residual_dropout",
        "temperature",
        "use_flash_attention",
        "use_flash_attention_2",
        "use_flash_attn",
    }
)
"""Keys that say nothing of a forward pass without dropout, though their names sound as if they
did."""

_SMELLS = re.compile(
    r"rope|rotar|scal|softcap|window|bias|norm|act|expert|moe|attn|attention|multiplier|mlp|ffn"
    r"|head|dim|layer|embed|quant|alibi|position|router|gate|gating|residual|logit|theta|factor"
    r"|kernel|conv|ssm|state|causal|mask|lora|rank|prun|spars|hidden|intermediate|block|width|depth"
    r"|temperature|sink|chunk|skip|shar|merge",
    re.IGNORECASE,
)


def is_neutral(key: str, value: Any) -> bool:
    """Whether a known mathematical key has a value that changes nothing."""
    # True equals 1 in Python, and says something else.
    return value is None or any(
        value == neutral and isinstance(value, bool) is isinstance(neutral, bool)
        for neutral in NEUTRAL[key]
    )


def smells_of_mathematics(key: str, value: Any) -> bool:
    """Whether an unknown key may change what is computed: by its name, and by being set."""
    return key not in _HARMLESS and value not in (None, False) and bool(_SMELLS.search(key))
