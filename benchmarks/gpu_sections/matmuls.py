"""The matrix products of the model, forward and both gradients, and a large square one."""

from typing import Any

import torch

from gpu_sections.setting import Setting

_FUSED = ("q k v fused", "o", "gate up fused", "down")


def measure(setting: Setting) -> None:
    """FLOP/s of every product; then of the body as the model computes it, and of the head."""
    shape, sizes = setting.architecture, setting.sizes
    d, f = shape.hidden_size, shape.intermediate_size
    q = shape.num_attention_heads * shape.head_dim
    kv = shape.num_key_value_heads * shape.head_dim
    square, tokens = sizes.square, sizes.gemm_tokens
    setting.attempt(f"square {square}", lambda: _product(setting, square, square, square))
    for name, num_inputs, num_outputs in (
        ("q k v fused", d, q + 2 * kv),
        ("o", q, d),
        ("gate up fused", d, 2 * f),
        ("down", f, d),
        ("q", d, q),
        ("k", d, kv),
        ("v", d, kv),
        ("gate", d, f),
        ("up", d, f),
    ):
        setting.attempt(name, lambda k=num_inputs, n=num_outputs: _product(setting, tokens, k, n))
    rows = sizes.head_tokens
    setting.attempt("head", lambda: _product(setting, rows, d, shape.vocab_size))
    setting.attempt("body as the model computes it", lambda: _body(setting.results))


def _product(setting: Setting, rows: int, num_inputs: int, num_outputs: int) -> dict[str, Any]:
    """Y = x W^T, dx = dy W and dW = dy^T x, each timed by itself."""
    x, dy = setting.random(rows, num_inputs), setting.random(rows, num_outputs)
    weight = setting.random(num_outputs, num_inputs)
    y, dx, dw = torch.empty_like(dy), torch.empty_like(x), torch.empty_like(weight)
    times_s = {
        "forward": setting.seconds(lambda: torch.mm(x, weight.T, out=y)),
        "input gradient": setting.seconds(lambda: torch.mm(dy, weight, out=dx)),
        "weight gradient": setting.seconds(lambda: torch.mm(dy.T, x, out=dw)),
    }
    flops = 2 * rows * num_inputs * num_outputs
    return {
        "rows": rows,
        "num_inputs": num_inputs,
        "num_outputs": num_outputs,
        "flops": 3 * flops,
        "elapsed_s": sum(times_s.values()),
        "flops_per_s": 3 * flops / sum(times_s.values()),
        "flops_per_s_of": {name: flops / time_s for name, time_s in times_s.items()},
    }


def _body(results: list[dict[str, Any]]) -> dict[str, Any]:
    parts = [each for each in results if each["what"] in _FUSED and "missing" not in each]
    if len(parts) != len(_FUSED):
        return {"missing": "one of its products was not measured"}
    flops, elapsed_s = (sum(each[key] for each in parts) for key in ("flops", "elapsed_s"))
    return {"flops_per_s": flops / elapsed_s}
