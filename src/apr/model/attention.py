"""How queries gather from keys: one definition, and kernels that must give the same.

A `Way` is asked once per forward pass what its positions may see, and answers with the function
that every block then calls. All of them see the same: a position sees itself and what comes
before it, in its own document where documents are numbered. `plain` is the definition, on any
device, and `pieces` computes less of it. The others are kernels of torch that never hold all
scores at once, and each raises where its kernel is not to be had, instead of computing in another
way.

Shape letters are those of `apr.model.transformer`; N documents of all rows laid end to end.
"""

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn
from torch.utils.checkpoint import checkpoint

from apr.model.attention_pieces import piece_length, pieces_of
from apr.model.computed_once import computed_once

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries (B,H,T,E), keys and values (B,K,S,E) in, what each query gathers (B,H,T,E) out."""
Way = Callable[[Tensor, Tensor | None], Attend]
"""From the stream (B,T,D) of a forward pass, and the documents (B,T) of its positions or None.

Documents are numbered along each row, and no number returns after another one.
"""

# Everything before and nothing after: torch's default is to see both sides. Newer versions ask
# whether heads are grouped; one that does not ask takes them as they are.
_VARLEN_OPTIONS: dict[str, Any] = {"window_size": (-1, 0)}
if "enable_gqa" in signature(varlen_attn).parameters:
    _VARLEN_OPTIONS["enable_gqa"] = True


def plain(x_BTD: Tensor, documents_BT: Tensor | None) -> Attend:
    """Every score at once, under an explicit mask; memory is O(T*T)."""
    if documents_BT is None:
        return masked(causal_mask(0, x_BTD.shape[1], device=x_BTD.device))
    return masked(document_mask(documents_BT))


def plain_recomputed(x_BTD: Tensor, documents_BT: Tensor | None) -> Attend:
    """The same numbers, with scores that a backward pass computes again: one layer's at a time."""
    return partial(
        checkpoint, plain(x_BTD, documents_BT), use_reentrant=False, preserve_rng_state=False
    )


def pieces(x_BTD: Tensor, documents_BT: Tensor | None) -> Attend:
    """A piece of the queries at a time, without the keys behind it: up to half of all scores.

    Memory is O(T*T), of one number per score in the stream's precision.
    """
    return partial(_piece_by_piece, bias_BHTS=_bias(x_BTD, documents_BT))


def flash(x_BTD: Tensor, documents_BT: Tensor | None) -> Attend:
    """Torch's own flash kernels; on a CPU under any mask, on CUDA where no documents are hidden."""
    return _fused(SDPBackend.FLASH_ATTENTION, x_BTD, documents_BT)


def cudnn(x_BTD: Tensor, documents_BT: Tensor | None) -> Attend:
    """CuDNN's kernels, on CUDA; documents are hidden by a mask, whose hidden part is computed."""
    return _fused(SDPBackend.CUDNN_ATTENTION, x_BTD, documents_BT)


def varlen(x_BTD: Tensor, documents_BT: Tensor | None) -> Attend:
    """Flash kernels over documents end to end, on CUDA in 16 bits; nothing hidden is computed."""
    rows, positions = x_BTD.shape[:2]
    borders = (
        torch.arange(0, (rows + 1) * positions, positions, dtype=torch.int32, device=x_BTD.device)
        if documents_BT is None
        else document_borders(documents_BT)
    )
    if not torch.compiler.is_compiling():
        from torch._dynamo import mark_dynamic  # a second, which only CUDA pays

        # A compiled block then serves any number of documents.
        mark_dynamic(borders, 0)
    return partial(_end_to_end, borders=borders)


def masked(mask_BTS: Tensor) -> Attend:
    """Plain attention under a mask that says for each query which keys it may see."""
    return partial(attend, mask_BTS=mask_BTS)


def attend(q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, *, mask_BTS: Tensor) -> Tensor:
    """Softmax attention with an explicit mask, the softmax in fp32.

    Query heads of one group meet their key head in a single product, so keys and values are
    never repeated. Memory is O(T*S).
    """
    batch, heads, positions, head_dim = q_BHTE.shape
    kv_heads, num_keys = k_BKSE.shape[1:3]
    q_BKXE = (q_BHTE * head_dim**-0.5).reshape(batch, kv_heads, -1, head_dim)
    scores_BHTS = (q_BKXE @ k_BKSE.transpose(2, 3)).view(batch, heads, positions, num_keys)
    scores_BHTS = scores_BHTS.float().masked_fill(~mask_BTS.unsqueeze(1), float("-inf"))
    weights_BHTS = torch.softmax(scores_BHTS, dim=-1).to(v_BKSE.dtype)
    y_BKXE = weights_BHTS.view(batch, kv_heads, -1, num_keys) @ v_BKSE
    return y_BKXE.view(batch, heads, positions, head_dim)


def causal_mask(start: int, num_positions: int, *, device: torch.device) -> Tensor:
    """True where a query at `start + t` may see a key: at itself and everything before."""
    queries = torch.arange(start, start + num_positions, device=device)
    keys = torch.arange(start + num_positions, device=device)
    return (keys <= queries.unsqueeze(1)).unsqueeze(0)


def document_mask(documents_BT: Tensor) -> Tensor:
    """The causal mask of rows that hold several documents, none of which sees another."""
    same_BTS = documents_BT.unsqueeze(2) == documents_BT.unsqueeze(1)
    return same_BTS & causal_mask(0, documents_BT.shape[1], device=documents_BT.device)


def document_borders(documents_BT: Tensor) -> Tensor:
    """Where documents begin when the rows are laid end to end, and the end; int32, (N + 1,).

    A row always begins one, so that no document is empty and none reaches into the next row.
    """
    begins_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    borders = begins_BT.flatten().nonzero().squeeze(1)
    return functional.pad(borders, (0, 1), value=documents_BT.numel()).int()


def _piece_by_piece(q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, *, bias_BHTS: Tensor) -> Tensor:
    batch, heads, positions, head_dim = q_BHTE.shape
    kv_heads, size = k_BKSE.shape[1], piece_length(positions)
    # Split and joined, not sliced: the gradient of a slice is as long as the whole, mostly zeros.
    qs, ks, vs = (x.split(size, dim=2) for x in (q_BHTE * head_dim**-0.5, k_BKSE, v_BKSE))
    y_BHTE: list[Tensor] = []
    for number, (start, stop) in enumerate(pieces_of(positions)):
        k, v = (torch.cat(parts[: number + 1], dim=2) for parts in (ks, vs))
        q_BKXE = qs[number].reshape(batch, kv_heads, -1, head_dim)
        scores_BHTS = (q_BKXE @ k.transpose(2, 3)).view(batch, heads, -1, stop)
        # Nothing or minus infinity is added without rounding; torch's softmax computes in fp32.
        weights_BHTS = torch.softmax(scores_BHTS + bias_BHTS[:, :, start:stop, :stop], dim=-1)
        y_BKXE = weights_BHTS.view(batch, kv_heads, -1, stop) @ v
        y_BHTE.append(y_BKXE.view(batch, heads, -1, head_dim))
    return torch.cat(y_BHTE, dim=2)


def _bias(x_BTD: Tensor, documents_BT: Tensor | None) -> Tensor:
    """What is added to a score: nothing, or minus infinity where a query may not see a key.

    A mask of booleans would become such numbers in each layer, and be kept by each; and compiled
    for a CPU it is slow.
    """
    mask_BTS = (
        causal_mask(0, x_BTD.shape[1], device=x_BTD.device)
        if documents_BT is None
        else document_mask(documents_BT)
    )
    mask_BHTS = mask_BTS.unsqueeze(1)
    bias_BHTS = torch.zeros_like(mask_BHTS, dtype=x_BTD.dtype)
    return computed_once(bias_BHTS.masked_fill(~mask_BHTS, float("-inf")))


def _fused(backend: SDPBackend, x_BTD: Tensor, documents_BT: Tensor | None) -> Attend:
    bias_BHTS = None if documents_BT is None else _bias(x_BTD, documents_BT)
    return partial(_sdpa, backend=backend, bias_BHTS=bias_BHTS)


def _sdpa(
    q_BHTE: Tensor,
    k_BKSE: Tensor,
    v_BKSE: Tensor,
    *,
    backend: SDPBackend,
    bias_BHTS: Tensor | None,
) -> Tensor:
    # With one backend allowed torch raises where it cannot be used, and does not take another.
    with sdpa_kernel([backend]):
        return functional.scaled_dot_product_attention(
            q_BHTE,
            k_BKSE,
            v_BKSE,
            attn_mask=bias_BHTS,
            is_causal=bias_BHTS is None,
            enable_gqa=q_BHTE.shape[1] != k_BKSE.shape[1],
        )


def _end_to_end(q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, *, borders: Tensor) -> Tensor:
    rows, _, positions, _ = q_BHTE.shape
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q_BHTE, k_BKTE, v_BKTE))
    # The longest document is not asked for, which would wait for the device: no row is longer.
    y = varlen_attn(q, k, v, borders, borders, positions, positions, **_VARLEN_OPTIONS)
    assert isinstance(y, Tensor)
    return y.unflatten(0, (rows, positions)).transpose(1, 2)
