"""Which way of computing attention a run takes: the one asked for, or with `auto` the best known.

Only `auto` chooses, and says so where it cannot take what it prefers.
"""

import warnings
from typing import TYPE_CHECKING

import torch

from apr.architecture import Architecture
from apr.errors import Refusal
from apr.model.attention import Way, cudnn, flash, pieces, plain, varlen
from apr.train.attention_preference import preferred_way

if TYPE_CHECKING:
    from apr.train.config import TrainConfig

WAYS: dict[str, Way] = {
    "plain": plain,
    "pieces": pieces,
    "flash": flash,
    "cudnn": cudnn,
    "varlen": varlen,
}
"""By the name that a person asks for and a record says."""


def choose_attention(
    config: "TrainConfig", architecture: Architecture, device: torch.device, dtype: torch.dtype
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
    if way in ("plain", "pieces"):
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
