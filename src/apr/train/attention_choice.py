"""Which way of computing attention a run takes: the one asked for, or with `auto` the best known.

Only `auto` chooses, and says so where it cannot take what it prefers.
"""

import warnings

import torch

from apr.architecture import Architecture
from apr.errors import Refusal
from apr.model.attention import Way, cudnn, flash, plain, varlen
from apr.train.config import TrainConfig

WAYS: dict[str, Way] = {"plain": plain, "flash": flash, "cudnn": cudnn, "varlen": varlen}
"""By the name that a person asks for and a record says."""

# On a CPU, measured (docs/log.md): in fp32 the kernel is faster from the first of these on; in bf16
# plain attention stays a tenth faster, but from the second its scores are most of a run's memory.
_PLAIN_BELOW_IN_FP32, _PLAIN_BELOW_IN_BF16 = 1024, 2048


def choose_attention(
    config: TrainConfig, architecture: Architecture, device: torch.device, dtype: torch.dtype
) -> tuple[str, list[str]]:
    """The name of the way, and what the person who started the run should know of it.

    Refuses: config.attention-unavailable.
    """

    def problem_of(way: str) -> str | None:
        return unavailable(
            way, architecture, config.seq_length, device, dtype, document_mask=config.document_mask
        )

    if config.attention == "auto":
        way = preferred_way(config, on_cpu=device.type == "cpu", in_fp32=dtype is torch.float32)
        if problem := problem_of(way):
            return "plain", [
                "attention is computed plainly, and its memory grows with the square of the "
                f"length: {way}: {problem}"
            ]
        return way, []
    if problem := problem_of(config.attention):
        raise Refusal(
            "config.attention-unavailable",
            f"--attention {config.attention}",
            found=problem,
            expected=f"kernels that take {config.seq_length} positions and heads of "
            f"{architecture.head_dim} on {device} in {str(dtype).removeprefix('torch.')}"
            + (", documents masked" if config.document_mask else ""),
            fix="use --attention auto, which takes what is there, or plain, which always is",
        )
    return config.attention, []


def preferred_way(config: TrainConfig, *, on_cpu: bool, in_fp32: bool) -> str:
    """What was asked for; for `auto` the best that is known for such a run.

    On CUDA kernels that hold no scores take 16 bits, and documents are hidden by laying them end
    to end. On a CPU the length decides.
    """
    if config.attention != "auto":
        return config.attention
    if on_cpu:
        plain_below = _PLAIN_BELOW_IN_FP32 if in_fp32 else _PLAIN_BELOW_IN_BF16
        return "plain" if config.seq_length < plain_below else "flash"
    if in_fp32:
        return "plain"
    return "varlen" if config.document_mask else "flash"


def unavailable(
    way: str,
    architecture: Architecture,
    sequence_length: int,
    device: torch.device,
    dtype: torch.dtype,
    *,
    document_mask: bool,
) -> str | None:
    """Compute one row forward and backward; the reason in one line when that fails."""
    if way == "plain":
        return None
    heads = (architecture.num_attention_heads, *[architecture.num_key_value_heads] * 2)
    q, k, v = (
        torch.ones(
            (1, h, sequence_length, architecture.head_dim),
            dtype=dtype,
            device=device,
            requires_grad=True,
        )
        for h in heads
    )
    x_BTD = torch.ones(1, sequence_length, 1, dtype=dtype, device=device)
    documents_BT = None
    if document_mask:
        documents_BT = (torch.arange(sequence_length, device=device) > 0).int().unsqueeze(0)
    said: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            WAYS[way](x_BTD, documents_BT)(q, k, v).sum().backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
    except Exception as err:
        reasons = [str(each.message) for each in said] or [str(err)]
        return f"{type(err).__name__}: {reasons[0].strip().partition(chr(10))[0][:160]}"
    return None
