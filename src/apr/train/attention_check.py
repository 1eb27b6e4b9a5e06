"""Does the attention of a run give what plain attention gives, position by position.

A gradient of the whole model hides what one position in hundreds sees too much. Here attention
stands alone, on random heads of the run's shape and under the mask of its first batch, and the
position that differs most decides.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from apr.model.attention import Attend, plain
from apr.model.transformer import Transformer
from apr.train.batches import Batch

_MOST_ROWS = 4
# Plain attention rounds its scores, the kernels do not; they divide the sums in other places.
_MOST_TIMES_PLAIN, _ALWAYS_ALLOWED = 4.0, 1e-4
_SMALL = 0.1
_NAMES = ("output", "gradient of queries", "gradient of keys", "gradient of values")

Heads = tuple[Tensor, Tensor, Tensor, Tensor]
"""Queries, keys, values and the output's gradient going in; as `_NAMES` coming out."""


@dataclass(frozen=True)
class AttentionDistance:
    """How far the position that differs most is from plain fp32, relative to its vector's length.

    `limit` follows from how far plain attention in the same precision is.
    """

    value: float
    limit: float
    name: str
    """Of the output and the three gradients the one that comes nearest to its limit."""

    @property
    def is_close(self) -> bool:
        """Whether every position is; what is no number is not."""
        return self.value <= self.limit

    def __str__(self) -> str:
        """As a verdict says it."""
        return f"attention within {self.value:.1e} of plain fp32 at every position ({self.name})"


def compare_attention(
    model: Transformer, batch: Batch, *, document_mask: bool
) -> AttentionDistance:
    """The model's attention beside plain attention, outputs and gradients.

    A few rows of the batch are compared, the first and the last among them; all are computed.
    """
    device = model.head_weight.device
    rows, positions = batch.input_ids_BT.shape
    documents_BT = None
    if document_mask:
        documents_BT = torch.from_numpy(batch.document_numbers_BT).to(device)
    heads = _random_heads(model, rows, positions, device)
    x_BTD = torch.empty(rows, positions, 1, dtype=model.compute_dtype, device=device)
    ours = _gathered(model.attention(x_BTD, documents_BT), heads)
    found, allowed = [0.0] * len(_NAMES), [_ALWAYS_ALLOWED] * len(_NAMES)
    for row in np.unique(np.linspace(0, rows - 1, min(rows, _MOST_ROWS), dtype=np.int64)):
        of_row = slice(int(row), int(row) + 1)
        in_row_1T = None if documents_BT is None else documents_BT[of_row]
        for group in range(model.architecture.num_key_value_heads):
            some = _one_group(heads, of_row, group)
            exact = _gathered(plain(x_BTD[of_row], in_row_1T), _in_fp32(some))
            near = _gathered(plain(x_BTD[of_row], in_row_1T), some)
            apart = _distances(_one_group(ours, of_row, group), exact)
            found = [_larger(pair) for pair in zip(found, apart, strict=True)]
            own = (_MOST_TIMES_PLAIN * each for each in _distances(near, exact))
            allowed = [max(pair) for pair in zip(allowed, own, strict=True)]
    each = zip(found, allowed, _NAMES, strict=True)
    return AttentionDistance(*max(each, key=lambda of: _larger((0.0, of[0] / of[1]))))


def _random_heads(model: Transformer, rows: int, positions: int, device: torch.device) -> Heads:
    shape = model.architecture
    generator = torch.Generator(device).manual_seed(0)
    h, k = shape.num_attention_heads, shape.num_key_value_heads
    q, key, v, gradient = (
        # As projections leave them: the heads of a position side by side.
        torch.randn((rows, positions, heads, shape.head_dim), generator=generator, device=device)
        .to(model.compute_dtype)
        .transpose(1, 2)
        for heads in (h, k, k, h)
    )
    return q, key, v, gradient


def _gathered(attend: Attend, heads: Heads) -> Heads:
    """The output, and the gradient of everything that goes in."""
    q, k, v = (each.detach().requires_grad_() for each in heads[:3])
    y = attend(q, k, v)
    of_q, of_k, of_v = torch.autograd.grad(y, (q, k, v), heads[3])
    return y.detach(), of_q, of_k, of_v


def _one_group(heads: Heads, of_row: slice, group: int) -> Heads:
    """The heads of one row that share a key head, apart from all others."""
    kv_heads = min(each.shape[1] for each in heads)
    q, k, v, gradient = (each[of_row].unflatten(1, (kv_heads, -1))[:, group] for each in heads)
    return q, k, v, gradient


def _in_fp32(heads: Heads) -> Heads:
    q, k, v, gradient = (each.float() for each in heads)
    return q, k, v, gradient


def _distances(found: Heads, exact: Heads) -> list[float]:
    """The largest of each tensor, over its positions; next to no gradient is told by the others."""
    distances: list[float] = []
    of_values = _usual_length(exact[-1])
    for name, ours, theirs in zip(_NAMES, found, exact, strict=True):
        length = theirs.norm(dim=-1)
        if name != _NAMES[0]:
            length = length + _usual_length(theirs) + _SMALL * of_values
        distances.append(float(((ours.float() - theirs).norm(dim=-1) / length).max()))
    return distances


def _usual_length(vectors: Tensor) -> Tensor:
    return vectors.square().sum(-1).mean().sqrt()


def _larger(pair: tuple[float, float]) -> float:
    """What is no number counts as the larger."""
    return pair[0] if pair[1] <= pair[0] else math.inf if math.isnan(pair[1]) else pair[1]
