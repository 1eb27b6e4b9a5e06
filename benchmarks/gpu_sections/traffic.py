"""How fast memory is: a plain copy, and the elementwise work of a block as a run compiles it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from apr.model.rotary import rotary_tables, rotate
from apr.model.transformer import RMSNorm
from apr.train.roofline import NORM_PASSES, ROTARY_PASSES, SWIGLU_PASSES
from gpu_sections.setting import Setting

_BF16_BYTES = 2


def measure(setting: Setting) -> None:
    """byte/s of a copy, of each elementwise part, and of all of them together."""
    setting.attempt("copy", lambda: _copy(setting))
    if not setting.is_dry_run:
        # The first compilation starts the compiler: no part below pays for that.
        torch.compile(torch.sin)(torch.ones(64, device=setting.device))
    shape, tokens = setting.architecture, setting.sizes.gemm_tokens
    d, f, e = shape.hidden_size, shape.intermediate_size, shape.head_dim
    heads, length = shape.num_attention_heads + shape.num_key_value_heads, 64
    norm = RMSNorm(d, shape.rms_norm_eps).to(setting.device)
    with torch.no_grad():
        norm.weight.fill_(1.0)
    cosine, sine = rotary_tables(shape, 0, length, device=setting.device)

    def add_and_norm(stream: Tensor, branch: Tensor) -> tuple[Tensor, ...]:
        stream = stream + branch
        return stream, norm(stream)

    def gated(gate: Tensor, up: Tensor) -> tuple[Tensor, ...]:
        return (functional.silu(gate) * up,)

    def turned(x: Tensor) -> tuple[Tensor, ...]:
        return (rotate(x, (cosine, sine)),)

    def values(*sizes: int) -> Tensor:
        return setting.random(*sizes, requires_grad=True)

    for name, work, inputs, elements in (
        ("residual and norm", add_and_norm, lambda: [values(tokens, d) for _ in "ab"],
         NORM_PASSES * d * tokens),
        ("swiglu", gated, lambda: [values(tokens, f) for _ in "ab"], SWIGLU_PASSES * f * tokens),
        ("rotary", turned, lambda: [values(tokens // length, heads, length, e)],
         ROTARY_PASSES * heads * e * (tokens // length * length)),
    ):  # fmt: skip
        setting.attempt(
            name, lambda w=work, i=inputs, n=elements: _both_ways(setting, w, i(), num_elements=n)
        )
    setting.attempt("elementwise of a block", lambda: _together(setting.results))


def _copy(setting: Setting) -> dict[str, Any]:
    source = torch.ones(setting.sizes.copy_bytes // 4, device=setting.device)
    target = torch.empty_like(source)
    num_bytes = 2 * source.numel() * source.element_size()
    elapsed_s = setting.seconds(lambda: target.copy_(source))
    return {"bytes": num_bytes, "elapsed_s": elapsed_s, "bytes_per_s": num_bytes / elapsed_s}


def _both_ways(
    setting: Setting,
    work: Callable[..., tuple[Tensor, ...]],
    inputs: Sequence[Tensor],
    *,
    num_elements: int,
) -> dict[str, Any]:
    """Forward and backward together, compiled; the bytes are those that the roofline counts."""
    computed = work if setting.is_dry_run else torch.compile(work, dynamic=False)
    gradients = [torch.ones_like(output) for output in work(*inputs)]

    def once() -> None:
        torch.autograd.grad(computed(*inputs), inputs, gradients)

    elapsed_s = setting.seconds(once)
    num_bytes = _BF16_BYTES * num_elements
    return {"bytes": num_bytes, "elapsed_s": elapsed_s, "bytes_per_s": num_bytes / elapsed_s}


def _together(results: list[dict[str, Any]]) -> dict[str, Any]:
    parts = {each["what"]: each for each in results if "missing" not in each}
    # A block has two norms.
    weights = {"residual and norm": 2, "swiglu": 1, "rotary": 1}
    if not weights.keys() <= parts.keys():
        return {"missing": "one of its parts was not measured"}
    num_bytes, elapsed_s = (
        sum(times * parts[name][key] for name, times in weights.items())
        for key in ("bytes", "elapsed_s")
    )
    return {"bytes_per_s": num_bytes / elapsed_s}
