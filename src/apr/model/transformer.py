"""The decoder-only transformer of the Llama and Qwen2 families, top to bottom.

Two choices make the rest of the project simple. Parameters carry Hugging Face's names and
shapes, with rotary embeddings in the split-half layout, so that loading a checkpoint is a
strict `load_state_dict` with no name map and no permutation. And parameters stay fp32 masters
whatever the precision of the computation: each projection casts its weight to the dtype of
its input, so precision is decided in one place, where the embedding enters the stream.

Shape letters: B batch, T positions (S of keys), D hidden_size, H query heads, K key/value heads,
G = H/K, E head_dim, F intermediate_size, V vocab_size.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from apr.architecture import Architecture
from apr.model.attention import Attend, Way, causal_mask, masked, plain
from apr.model.kv_cache import KeyValueCache
from apr.model.rotary import rotary_tables, rotate


class Transformer(nn.Module):
    """Token ids in, hidden states or logits out.

    Construction allocates parameters on torch's default device and leaves them NaN: `model.init`
    or `model.weights` must fill every one of them, and one that was forgotten cannot stay
    unnoticed.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.compute_dtype = torch.float32
        self.attention: Way = plain
        self.model = Backbone(architecture)
        if not architecture.tie_word_embeddings:
            self.lm_head = _linear(architecture.hidden_size, architecture.vocab_size)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.fill_(float("nan"))

    @property
    def head_weight(self) -> Tensor:
        """The output head; for a tied model the embedding itself, the same storage."""
        if self.architecture.tie_word_embeddings:
            return self.model.get_parameter("embed_tokens.weight")
        return self.get_parameter("lm_head.weight")

    def hidden_states(
        self,
        input_ids_BT: Tensor,
        *,
        documents_BT: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """The normed residual stream, in `compute_dtype`.

        A position sees itself and all before it; where `documents_BT` numbers the documents of a
        row, only what is in its own. With a `cache`, the ids continue the sequence it holds, and
        attention is plain.
        """
        assert cache is None or documents_BT is None, "a cache holds one document"
        x_BTD = self.model(input_ids_BT, self.attention, documents_BT, self.compute_dtype, cache)
        if cache is not None:
            cache.length += input_ids_BT.shape[1]
        return x_BTD

    def forward(
        self,
        input_ids_BT: Tensor,
        *,
        documents_BT: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Logits of the next token at every position."""
        x_BTD = self.hidden_states(input_ids_BT, documents_BT=documents_BT, cache=cache)
        return functional.linear(x_BTD, self.head_weight.to(x_BTD.dtype))


class Backbone(nn.Module):
    """Embedding, blocks and final norm; `model.` in every Hugging Face name."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.embed_tokens = nn.utils.skip_init(
            nn.Embedding,
            architecture.vocab_size,
            architecture.hidden_size,
            device=torch.get_default_device(),
        )
        self.layers = nn.ModuleList(
            Block(architecture, layer) for layer in range(architecture.num_hidden_layers)
        )
        self.norm = RMSNorm(architecture.hidden_size, architecture.rms_norm_eps)
        self.recomputes_blocks = False
        """Whether a block keeps its input alone for its gradient, and is computed again then."""
        self.compute_block: ComputeBlock = Block.compute
        """What a block is computed by; a compiled one serves all blocks."""

    def forward(
        self,
        input_ids_BT: Tensor,
        attention: Way,
        documents_BT: Tensor | None,
        compute_dtype: torch.dtype,
        cache: KeyValueCache | None,
    ) -> Tensor:
        start = 0 if cache is None else cache.length
        num_positions, device = input_ids_BT.shape[1], input_ids_BT.device
        rotary = rotary_tables(self.architecture, start, num_positions, device=device)
        x_BTD = self.embed_tokens(input_ids_BT).to(compute_dtype)
        attend = (
            attention(x_BTD, documents_BT)
            if cache is None
            else masked(causal_mask(start, num_positions, device=device))
        )
        for block in self.layers:
            if self.recomputes_blocks and torch.is_grad_enabled():
                # No random number is drawn in a block, so none has to be drawn again.
                x_BTD = checkpoint(
                    block,
                    *(x_BTD, attend, rotary, cache, self.compute_block),
                    use_reentrant=False,
                    preserve_rng_state=False,
                )
            else:
                x_BTD = block(x_BTD, attend, rotary, cache, self.compute_block)
        return self.norm(x_BTD)


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each added to the residual stream."""

    def __init__(self, architecture: Architecture, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(architecture.hidden_size, architecture.rms_norm_eps)
        self.self_attn = Attention(architecture, layer)
        self.post_attention_layernorm = RMSNorm(architecture.hidden_size, architecture.rms_norm_eps)
        self.mlp = FeedForward(architecture)

    def forward(
        self,
        x_BTD: Tensor,
        attend: Attend,
        rotary: tuple[Tensor, Tensor],
        cache: KeyValueCache | None,
        compute: "ComputeBlock",
    ) -> Tensor:
        # A call of the module, so that whoever gathers its weights is told before and after.
        return compute(self, x_BTD, attend, rotary, cache)

    def compute(
        self,
        x_BTD: Tensor,
        attend: Attend,
        rotary: tuple[Tensor, Tensor],
        cache: KeyValueCache | None,
    ) -> Tensor:
        """The stream after this block."""
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), attend, rotary, cache)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


ComputeBlock = Callable[
    [Block, Tensor, Attend, tuple[Tensor, Tensor], KeyValueCache | None], Tensor
]
"""As `Block.compute`."""


class Attention(nn.Module):
    """Grouped-query attention with rotary positions.

    Qwen2 adds biases to q, k and v; Qwen3 norms every head of q and k instead.
    """

    def __init__(self, architecture: Architecture, layer: int) -> None:
        super().__init__()
        d, e = architecture.hidden_size, architecture.head_dim
        self.layer = layer
        self.joins_again = False
        self.num_key_value_heads = architecture.num_key_value_heads
        self.head_dim = e
        bias = architecture.attention_bias
        self.q_proj = _linear(d, architecture.query_width, bias=bias)
        self.k_proj = _linear(d, architecture.key_value_width, bias=bias)
        self.v_proj = _linear(d, architecture.key_value_width, bias=bias)
        self.o_proj = _linear(architecture.query_width, d)
        self.has_norms = architecture.has_query_key_norm
        if self.has_norms:
            self.q_norm = RMSNorm(e, architecture.rms_norm_eps)
            self.k_norm = RMSNorm(e, architecture.rms_norm_eps)

    def forward(
        self,
        x_BTD: Tensor,
        attend: Attend,
        rotary: tuple[Tensor, Tensor],
        cache: KeyValueCache | None,
    ) -> Tensor:
        q_BHTE, k_BKSE, v_BKSE = self.heads(x_BTD)
        q_BHTE, k_BKSE = self.turn(q_BHTE, rotary), self.turn(k_BKSE, rotary)
        if cache is not None:
            k_BKSE, v_BKSE = cache.append(self.layer, k_BKSE, v_BKSE)
        return self.output(self.mix(q_BHTE, k_BKSE, v_BKSE, attend))

    # The four operations by themselves: `model.operations` walks them when a proof fails.

    def heads(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of every head, before they are turned."""
        q, k, v = (
            y.unflatten(2, (-1, self.head_dim)).transpose(1, 2)
            for y in project(
                x_BTD, self.q_proj, self.k_proj, self.v_proj, joins_again=self.joins_again
            )
        )
        return (self.q_norm(q), self.k_norm(k), v) if self.has_norms else (q, k, v)

    def turn(self, x_BHTE: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Heads turned by their positions' angles."""
        return rotate(x_BHTE, rotary)

    def mix(self, q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, attend: Attend) -> Tensor:
        """What every query gathers from the values it may see."""
        return attend(q_BHTE, k_BKSE, v_BKSE)

    def output(self, y_BHTE: Tensor) -> Tensor:
        """The heads joined and projected back into the residual stream."""
        y_BTD = y_BHTE.transpose(1, 2).flatten(2)
        return project(y_BTD, self.o_proj, joins_again=self.joins_again)[0]


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        d, f = architecture.hidden_size, architecture.intermediate_size
        self.joins_again = False
        self.gate_proj = _linear(d, f)
        self.up_proj = _linear(d, f)
        self.down_proj = _linear(f, d)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return project(self.inside(x_BTD), self.down_proj, joins_again=self.joins_again)[0]

    def inside(self, x_BTD: Tensor) -> Tensor:
        """The gated activations, before they are projected back."""
        gate_BTF, up_BTF = project(
            x_BTD, self.gate_proj, self.up_proj, joins_again=self.joins_again
        )
        return functional.silu(gate_BTF) * up_BTF


class RMSNorm(nn.Module):
    """x / rms(x) * weight, computed in fp32 whatever the stream's dtype."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, stream: Tensor) -> Tensor:
        x = stream.float()
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)
        return (self.weight * x).to(stream.dtype)


def project(x: Tensor, *linears: nn.Linear, joins_again: bool = False) -> tuple[Tensor, ...]:
    """Apply several linear maps of the same input as one matrix product, in the input's dtype.

    The maps stay apart as parameters, which is how every checkpoint format names them; joining
    them costs a copy of the weights and saves passes over the activations. With `joins_again` that
    copy is not kept for the backward pass, but made a second time.
    """

    def product(x: Tensor) -> Tensor:
        weight = torch.cat([linear.weight.to(x.dtype) for linear in linears])
        biases = [linear.bias.to(x.dtype) for linear in linears if linear.bias is not None]
        return functional.linear(x, weight, torch.cat(biases) if biases else None)

    if joins_again and torch.is_grad_enabled():
        # It stops where the product has its operands again.
        y = checkpoint(product, x, use_reentrant=False, preserve_rng_state=False)
    else:
        y = product(x)
    return y.split([linear.out_features for linear in linears], dim=-1)


def _linear(num_inputs: int, num_outputs: int, *, bias: bool = False) -> nn.Linear:
    # skip_init leaves the memory as allocated: it is filled once, by init or by a load.
    linear = nn.utils.skip_init(
        nn.Linear, num_inputs, num_outputs, bias=bias, device=torch.get_default_device()
    )
    assert isinstance(linear, nn.Linear)
    return linear
