"""What the run computes on and with: device, precision, compiled kernels.

Each choice is explicit or made by a probe; what was chosen is recorded, and a fast path is
compared with plain fp32 before it is used (`train.gradients_gate`).
"""

import platform
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from apr.architecture import Architecture
from apr.errors import FeatureMissing, Refusal
from apr.model.switches import blocks_computed_by
from apr.model.transformer import Block, ComputeBlock, Transformer
from apr.train.attention_choice import WAYS, choose_attention
from apr.train.head_chunks import tokens_per_chunk
from apr.train.linear_cross_entropy import HeadLoss, linear_cross_entropy, loss_and_gradient
from apr.train.loss import HiddenStates, masked_hidden_states, masked_logits, summed_loss
from apr.train.step import MaskedLogits, SummedLoss

if TYPE_CHECKING:
    from apr.train.config import TrainConfig

# Below this much work the seconds that compiling costs are not earned back.
_WORTH_COMPILING_FLOPS = 2e13
# bf16 must win clearly, so that the choice is the same on every start of the same machine.
_CLEARLY_FASTER = 1.25
# Each shape is compiled once; a run has a few, a process that makes many runs more.
_MOST_SHAPES = 64


@dataclass(frozen=True)
class Acceleration:
    """The resolved choices; `notices` are for the person who started the run.

    `chunk_tokens` is how many tokens the loss takes through the head at a time.
    """

    device: torch.device
    compute_dtype: torch.dtype
    compiled: bool
    notices: tuple[str, ...]
    attention: str = "plain"
    chunk_tokens: int | None = None

    @property
    def precision(self) -> str:
        """The computation's precision as configuration spells it."""
        return "bf16" if self.compute_dtype is torch.bfloat16 else "fp32"

    def apply_to(self, model: Transformer) -> None:
        """Have a model compute in this precision, with this attention."""
        model.compute_dtype, model.attention = self.compute_dtype, WAYS[self.attention]

    def loss_function(self) -> SummedLoss:
        """The training loss, compiled where that was chosen."""
        if not self.compiled:
            return summed_loss
        return partial(
            summed_loss,
            hidden_states=_with_gradients(_by_compiled_blocks(masked_hidden_states)),
            head_loss=self.head_loss_function(),
        )

    def head_loss_function(self) -> HeadLoss:
        """The part of that loss behind the hidden states, compiled where that was chosen."""
        if not self.compiled:
            return linear_cross_entropy
        fused = _compiled(loss_and_gradient)
        return partial(linear_cross_entropy, loss_and_gradient=fused)

    def logits_function(self) -> MaskedLogits:
        """The logits below that loss, compiled where that was chosen."""
        return _by_compiled_blocks(masked_logits) if self.compiled else masked_logits

    def environment(self) -> dict[str, Any]:
        """What a result depends on beside configuration and data."""
        return {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "torch": torch.__version__,
            "device": str(self.device),
            "device_name": device_name(self.device),
            "threads": torch.get_num_threads(),
            "precision": self.precision,
            "compiled": self.compiled,
            # Off wherever something is compiled: see `_compiled`.
            "mix_order_reduction": False if self.compiled else None,
            "attention": self.attention,
            "cross_entropy": f"chunked, {self.chunk_tokens} tokens",
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        }


def choose_acceleration(config: "TrainConfig", architecture: Architecture) -> Acceleration:
    """Resolve `auto` by probing this machine.

    Refuses: config.device-unavailable (GATE-GPUTRAIN-002), config.no-compiler,
    config.attention-unavailable.
    """
    device, notices = choose_device(config.device), list[str]()
    if config.device == "auto" and device.type == "cpu":
        notices.append("computing on the CPU: no CUDA device is there (--device cuda demands one)")
    compute_dtype = _choose_precision(config.precision, device, architecture)
    attention, why_not = choose_attention(config, architecture, device, compute_dtype)
    notices.extend(why_not)
    compiled = config.compile
    if compiled is None:
        compiled = is_long(config, architecture)
    if compiled and (problem := _compile_problem(device)):
        if config.compile:
            raise FeatureMissing(
                "config.no-compiler",
                "--compile",
                found=problem,
                expected="a compiler that torch.compile can use",
                fix="install a C++ compiler (Debian: g++), or drop --compile",
            )
        compiled = False
        notices.append(f"compiled kernels are off, the run is slower: {problem}")
    chunk_tokens = tokens_per_chunk(architecture.vocab_size, on_cpu=device.type == "cpu")
    return Acceleration(device, compute_dtype, compiled, tuple(notices), attention, chunk_tokens)


def is_long(config: "TrainConfig", architecture: Architecture) -> bool:
    """Whether a run has so much to compute that seconds of preparation are earned back."""
    work_flops = config.planned_tokens * architecture.training_flops_per_token(
        config.seq_length, convention="conventional"
    )
    return work_flops >= _WORTH_COMPILING_FLOPS


def choose_device(name: str) -> torch.device:
    """The device of that name, or for `auto` the first that is there; allocates nothing.

    Refuses: config.device-unavailable (GATE-GPUTRAIN-002).
    """
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise Refusal(
            "config.device-unavailable",
            f"--device {name}",
            found=f"{torch.cuda.device_count()} CUDA devices",
            expected="that device",
            fix="use --device auto, which may fall back to the CPU",
            upstream_id="GATE-GPUTRAIN-002",
        )
    return device


def _by_compiled_blocks(function: MaskedLogits) -> MaskedLogits:
    """The same with one compiled function for all blocks, whose number costs no seconds then.

    What is around them is small, or a loop that a compiler would only unroll.
    """
    compute: ComputeBlock = _compiled(Block.compute)

    def compiled(model: Transformer, *arguments: Any) -> Tensor:
        with blocks_computed_by(model, compute):
            return function(model, *arguments)

    return compiled


def _compiled(function: Any) -> Any:
    """A function as torch compiles it, which never goes on uncompiled unsaid.

    Without mix-order reduction, which gave wrong gradients of norms and biases and is on by default
    in torch 2.11 and 2.13 (pytorch/pytorch#193061, #190796); and in one piece whoever calls it,
    where DistributedDataParallel has blocks cut by the buckets of its gradients.
    """
    from torch._dynamo import config as tracing
    from torch._inductor import config as compiling

    compiling.triton.mix_order_reduction = False
    tracing.optimize_ddp = False
    tracing.recompile_limit = max(_MOST_SHAPES, tracing.recompile_limit)
    tracing.fail_on_recompile_limit_hit = True
    return torch.compile(function, dynamic=False)


def _with_gradients(hidden_states: HiddenStates) -> HiddenStates:
    """A kernel compiled once: a validation, which wants no gradient, runs that of training."""

    def compiled(*arguments: Any) -> Tensor:
        with torch.enable_grad():
            return hidden_states(*arguments)

    return compiled


def _choose_precision(
    requested: str, device: torch.device, architecture: Architecture
) -> torch.dtype:
    if requested != "auto":
        return torch.bfloat16 if requested == "bf16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    width = max(256, architecture.hidden_size)
    fp32_s = _matmul_s(torch.float32, width)
    return (
        torch.bfloat16
        if fp32_s > _CLEARLY_FASTER * _matmul_s(torch.bfloat16, width)
        else (torch.float32)
    )


def _matmul_s(dtype: torch.dtype, width: int) -> float:
    left, right = torch.ones(1024, width, dtype=dtype), torch.ones(width, 4 * width, dtype=dtype)
    times_s: list[float] = []
    for _ in range(6):
        started_s = time.perf_counter()
        torch.mm(left, right)
        times_s.append(time.perf_counter() - started_s)
    return min(times_s)


def _compile_problem(device: torch.device) -> str | None:
    """Compile one small kernel; the reason in one line when that fails."""

    def scaled(x: Tensor) -> Tensor:
        return torch.sigmoid(x) * 2.0

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.compile(scaled)(torch.ones(64, device=device))
    except Exception as err:
        return f"{type(err).__name__}: {str(err).strip().partition(chr(10))[0][:160]}"
    return None


def device_name(device: torch.device) -> str:
    """What the device calls itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        for line in cpuinfo:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
