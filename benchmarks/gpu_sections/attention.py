"""Attention by every backend: is it right, and how fast, forward and backward.

A backend that is asked for and cannot do it raises, and so does one that is wrong: neither gets a
speed. Speeds count the causal half, and two and a half times the forward's work for the gradient.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from gpu_sections.setting import Setting

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

_BACKENDS = ("CUDNN_ATTENTION", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "MATH")
# Relative to the largest value of the fp32 reference; bf16 keeps eight bits.
_TOLERANCE = 0.03
_CHECKED_LENGTH = 256
_DOCUMENTS = 8


def measure(setting: Setting) -> None:
    """Each sequence length, each backend; packed rows with and without documents last."""
    for length in setting.sizes.attention:
        for name in _BACKENDS:
            # The math backend keeps all scores: it is the reference, and only small.
            if name != "MATH" or setting.is_dry_run:
                backend = SDPBackend.__members__[name]
                setting.attempt(
                    f"{name} at {length}",
                    # Torch's memory-efficient kernels group no heads.
                    lambda b=backend, at=length: _measured(
                        setting, _sdpa(b, repeats="EFFICIENT" in b.name), length=at
                    ),
                )
        for label, documents in (("whole rows", 1), (f"{_DOCUMENTS} documents a row", _DOCUMENTS)):
            for repeats in (False, True):
                # Where the version groups no heads, repeated ones are the next best.
                if repeats and "missing" not in setting.results[-1]:
                    continue
                setting.attempt(
                    f"varlen at {length}, {label}" + (", heads repeated" if repeats else ""),
                    lambda at=length, n=documents, r=repeats: _measured(
                        setting, _varlen(at, n, repeats=r), length=at // n
                    ),
                )


def _sdpa(backend: SDPBackend, *, repeats: bool) -> Attend:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        groups = q.shape[1] // k.shape[1] if repeats else 1
        k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
        with sdpa_kernel([backend]):
            return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    return attend


def _varlen(length: int, num_documents: int, *, repeats: bool) -> Attend:
    """`varlen_attn` on rows laid end to end; its arguments differ from version to version."""
    from torch.nn.attention.varlen import varlen_attn

    known = inspect.signature(varlen_attn).parameters
    if "window_size" in known:
        options: dict[str, Any] = {"window_size": (-1, 0)}
    else:
        options = {"is_causal": True}
    if "enable_gqa" in known and not repeats:
        options["enable_gqa"] = True

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # The borders are those of documents, so the reference for a small row sees whole rows.
        size = min(q.shape[2], length) // num_documents
        groups = q.shape[1] // k.shape[1] if repeats else 1
        flat_q, flat_k, flat_v = (
            x.repeat_interleave(times, dim=1).transpose(1, 2).flatten(0, 1)
            for x, times in ((q, 1), (k, groups), (v, groups))
        )
        ends = torch.arange(0, flat_q.shape[0] + 1, size, dtype=torch.int32, device=q.device)
        y = varlen_attn(flat_q, flat_k, flat_v, ends, ends, size, size, **options)
        assert isinstance(y, Tensor)
        return y.unflatten(0, (q.shape[0], q.shape[2])).transpose(1, 2)

    attend.num_documents = num_documents  # pyright: ignore[reportFunctionMemberAccess]
    return attend


def _measured(setting: Setting, attend: Attend, *, length: int) -> dict[str, Any]:
    shape = setting.architecture
    documents: int = getattr(attend, "num_documents", 1)
    error = _error(setting, attend, documents)
    if not error <= _TOLERANCE:
        return {"missing": f"wrong: off by {error:.2e} of the largest value", "error": error}
    row = length * documents
    rows = max(1, setting.sizes.gemm_tokens // row)
    q, k, v = _inputs(setting, rows, row)
    dy = setting.random(*q.shape)
    forward_s = setting.seconds(lambda: attend(q, k, v))
    y = attend(q, k, v)
    backward_s = setting.seconds(lambda: torch.autograd.grad(y, (q, k, v), dy, retain_graph=True))
    flops = 2.0 * rows * row * length * shape.num_attention_heads * shape.head_dim
    return {
        "rows": rows,
        "length": length,
        "error": error,
        "forward_s": forward_s,
        "backward_s": backward_s,
        "forward_flops_per_s": flops / forward_s,
        "backward_flops_per_s": 2.5 * flops / backward_s,
    }


def _error(setting: Setting, attend: Attend, documents: int) -> float:
    """The largest difference to fp32 with a mask that is written out, output and gradients."""
    length = min(_CHECKED_LENGTH, min(setting.sizes.attention))
    inputs = _inputs(setting, 1, length)
    exact = [x.detach().float().requires_grad_() for x in inputs]
    number = torch.arange(length, device=setting.device) * documents // length
    mask = (number[:, None] == number).tril()
    with sdpa_kernel([SDPBackend.MATH]):
        expected = scaled_dot_product_attention(*exact, attn_mask=mask, enable_gqa=True)
    found = attend(*inputs)
    dy = setting.random(*found.shape)
    pairs = zip(
        [found, *torch.autograd.grad(found, inputs, dy)],
        [expected, *torch.autograd.grad(expected, exact, dy.float())],
        strict=True,
    )
    detached = ((a.detach().float(), b.detach()) for a, b in pairs)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in detached)


def _inputs(setting: Setting, rows: int, length: int) -> Sequence[Tensor]:
    shape = setting.architecture
    heads = (shape.num_attention_heads, shape.num_key_value_heads, shape.num_key_value_heads)
    # Laid out as projections give them, position by position.
    laid_out = [
        setting.random(rows, length, count, shape.head_dim, requires_grad=True) for count in heads
    ]
    return [x.transpose(1, 2) for x in laid_out]
