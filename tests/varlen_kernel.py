"""What CUDA's flash kernels of variable length compute, for the CPU, which torch has none for.

It stands behind `torch.nn.attention.varlen.varlen_attn`, so that torch's own function, its autograd
and its shapes under a compiler are used as they are. Written from the documented meaning: documents
between the borders, a causal window, grouped heads.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


@contextmanager
def varlen_on_cpu() -> Generator[list[int]]:
    """Inside, `varlen_attn` computes on the CPU; the list gets the number of documents per call."""
    library, seen = torch.library.Library("aten", "IMPL"), list[int]()

    def forward(*arguments: Any, **options: Any) -> tuple[Tensor, ...]:
        seen.append(len(arguments[3]) - 1)
        return _forward(*arguments, **options)

    library.impl("_flash_attention_forward", forward, "CPU")
    library.impl("_flash_attention_backward", _backward, "CPU")
    try:
        yield seen
    finally:
        library._destroy()


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    borders: Tensor,
    _borders: Tensor,
    longest: int,
    *_: Any,
    window_size_left: int,
    window_size_right: int,
    **_options: Any,
) -> tuple[Tensor, ...]:
    assert (window_size_left, window_size_right) == (-1, 0), "not causal"
    out, lse = torch.empty_like(q), torch.empty(q.shape[1], q.shape[0])
    for at, _q, _k, v_HTE, scores in _documents(q, k, v, borders, longest):
        out[at] = (scores.softmax(-1) @ v_HTE).transpose(0, 1).to(q.dtype)
        lse[:, at] = scores.logsumexp(-1)
    rng = torch.zeros(2, dtype=torch.uint64)
    return out, lse, rng, torch.zeros((), dtype=torch.uint64), torch.empty(0)


def _backward(
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    _out: Tensor,
    _lse: Tensor,
    borders: Tensor,
    _borders: Tensor,
    longest: int,
    *_: Any,
    **_options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty_like(each) for each in (q, k, v))
    groups = q.shape[1] // k.shape[1]
    for at, q_HTE, k_HTE, v_HTE, scores in _documents(q, k, v, borders, longest):
        weights, gathered = scores.softmax(-1), gradient[at].transpose(0, 1).float()
        of_weights = gathered @ v_HTE.transpose(1, 2)
        of_scores = weights * (of_weights - (weights * of_weights).sum(-1, keepdim=True))
        of_scores = of_scores * q.shape[-1] ** -0.5
        dq[at] = (of_scores @ k_HTE).transpose(0, 1).to(q.dtype)
        for whole, part in (
            (dk, of_scores.transpose(1, 2) @ q_HTE),
            (dv, weights.transpose(1, 2) @ gathered),
        ):
            whole[at] = part.unflatten(0, (-1, groups)).sum(1).transpose(0, 1).to(q.dtype)
    return dq, dk, dv


def _documents(
    q: Tensor, k: Tensor, v: Tensor, borders: Tensor, longest: int
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor, Tensor]]:
    """Every document's place, heads in fp32, and masked scores."""
    assert borders.dtype is torch.int32
    places = borders.tolist()
    assert places[0] == 0
    assert places[-1] == len(q)
    groups = q.shape[1] // k.shape[1]
    for start, stop in pairwise(places):
        assert 0 < stop - start <= longest
        at = slice(start, stop)
        q_HTE = q[at].transpose(0, 1).float()
        k_HTE, v_HTE = (
            each[at].transpose(0, 1).float().repeat_interleave(groups, 0) for each in (k, v)
        )
        scores = q_HTE @ k_HTE.transpose(1, 2) * q.shape[-1] ** -0.5
        later = ~torch.ones(stop - start, stop - start, dtype=torch.bool).tril()
        yield at, q_HTE, k_HTE, v_HTE, scores.masked_fill(later, float("-inf"))
