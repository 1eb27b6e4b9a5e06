"""What a run takes: tokens, memory, disk, arithmetic and time, as plain facts for a person or JSON.

`apr plan` and `apr pretrain --dry-run` say the same things of a run, so they are said here.
"""

from dataclasses import dataclass
from typing import Any

from apr.architecture import CONVENTIONS, Architecture
from apr.train.config import TrainConfig
from apr.train.copies import Copies
from apr.train.device_memory import DeviceMemory, read_device_memory, read_host_memory
from apr.train.disk import estimate_disk, free_bytes
from apr.train.gates import judge
from apr.train.host_memory import beside_the_devices
from apr.train.inputs import Inputs
from apr.train.memory import estimate_memory
from apr.train.ranks import ALONE, Ranks
from apr.train.rate import Rate
from apr.train.resources_gate import check_disk, check_memory, workload
from apr.train.token_budget import CHEAP_EPOCHS, effective_tokens, zone
from apr.train.workload import Workload


@dataclass(frozen=True)
class Data:
    """What is known of a run's training data without reading its tokens."""

    copies: Copies
    num_documents: int

    @property
    def unique_tokens(self) -> int:
        """Tokens of all documents, each text counted once."""
        return self.copies.unique_tokens


def costs_of_inputs(
    config: TrainConfig, inputs: Inputs, rate: Rate, ranks: Ranks = ALONE
) -> dict[str, Any]:
    """What a run takes whose inputs are open; held-out documents are read as well."""
    return costs_of(
        config,
        inputs.architecture,
        data=Data(inputs.data.copies, inputs.num_documents),
        tokenizer_bytes=len(inputs.tokenizer.json_bytes),
        rate=rate,
        seen_tokens=inputs.init.tokens_seen if inputs.init else 0,
        ranks=ranks,
    )


def costs_of(
    config: TrainConfig,
    architecture: Architecture,
    *,
    data: Data | None,
    tokenizer_bytes: int,
    rate: Rate,
    seen_tokens: int | None = 0,
    device_memory: DeviceMemory | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Tokens, memory, disk, FLOPs and hours of a run; what is not known is null with a reason.

    `seen_tokens` are those of an initial model; None when it does not say. `device_memory` is that
    of a device which is not here; the configured one is asked otherwise. Memory is that of one of
    the `ranks`.
    """
    num_documents = data.num_documents if data else 0
    return {
        "num_parameters": architecture.num_parameters,
        "num_matmul_parameters": architecture.num_matmul_parameters(),
        "num_steps": config.num_steps,
        "grad_accum": config.num_micro_batches,
        "micro_batch_tokens": config.batch_tokens // config.num_micro_batches,
        "activation_checkpointing": config.activation_checkpointing,
        **_tokens(config, architecture, data, seen_tokens),
        "memory": _memory(
            config,
            architecture,
            num_documents,
            device=device_memory,
            ranks=ranks,
        ),
        "disk": _disk(config, architecture, tokenizer_bytes),
        "flops": _flops(config, architecture),
        "time": _time(config, rate),
    }


def _tokens(
    config: TrainConfig, architecture: Architecture, data: Data | None, seen_tokens: int | None
) -> dict[str, Any]:
    planned = config.planned_tokens
    facts: dict[str, Any] = {"planned_tokens": planned, "batch_tokens": config.batch_tokens}
    if data is None or data.unique_tokens == 0:
        reason = "no --dataset was given" if data is None else "the data holds no token"
        names = ("unique_tokens", "copied_tokens", "epochs_over_data", "effective_tokens")
        facts |= dict.fromkeys(names) | {f"{name}_reason": reason for name in names}
        return facts | _per_parameter(float(planned), architecture, seen_tokens)
    epochs = planned / data.unique_tokens
    effective = effective_tokens(planned, data.unique_tokens)
    warning = (
        f"{epochs:.1f} epochs: beyond {CHEAP_EPOCHS:g} a repeated token is worth clearly less than "
        f"a new one; these {planned} are worth {effective:.0f} (Muennighoff et al. 2023)"
    )
    return facts | {
        **_per_parameter(effective, architecture, seen_tokens),
        **data.copies.facts(),
        "copies": data.copies.notice(),
        "epochs_over_data": epochs,
        "effective_tokens": effective,
        "repetition": warning if epochs > CHEAP_EPOCHS else None,
    }


def _per_parameter(
    worth: float, architecture: Architecture, seen_tokens: int | None
) -> dict[str, Any]:
    """The ratio that preflight.token-budget judges, and its zone."""
    if seen_tokens is None:
        reason = "the initial model does not say how many tokens it has seen"
        names = ("tokens_per_parameter", "zone")
        return dict.fromkeys(names) | {f"{name}_reason": reason for name in names}
    ratio = (seen_tokens + worth) / architecture.num_parameters
    return {"tokens_per_parameter": ratio, "zone": zone(ratio)}


def _memory(
    config: TrainConfig,
    architecture: Architecture,
    num_documents: int,
    *,
    device: DeviceMemory | None,
    ranks: Ranks,
) -> dict[str, Any]:
    """Of the device that is given, or of the configured one, which is here and so is its host."""
    is_here = device is None
    device = (device or read_device_memory(config.device)).shared_by(ranks.local_world_size)
    host = read_host_memory() if is_here and not device.on_cpu else None
    work = workload(config, architecture, device, num_documents=num_documents, ranks=ranks)
    estimate = estimate_memory(work)
    gate = judge(
        "preflight.memory",
        lambda: check_memory(work, device, host=host, num_local_ranks=ranks.local_world_size),
    )
    return {
        "peak_bytes": estimate.peak_bytes,
        "moment": estimate.moment,
        "parts": estimate.parts,
        **_available(device),
        **_host(work, host, ranks),
        "verdict": gate.verdict,
        "fix": gate.fix or None,
    }


def _host(work: Workload, host: DeviceMemory | None, ranks: Ranks) -> dict[str, Any]:
    """What lies beside a device that has a memory of its own."""
    if work.on_cpu:
        return {"host": None, "host_reason": "the model is in its memory"}
    parts = beside_the_devices(work, ranks.local_world_size)
    available = _available(host or DeviceMemory(None, "it is not here"))
    return {"host": {"peak_bytes": sum(parts.values()), "parts": parts, **available}}


def _available(device: DeviceMemory) -> dict[str, Any]:
    word = "available_source" if device.available_bytes else "available_bytes_reason"
    return {"available_bytes": device.available_bytes, word: device.source}


def _disk(config: TrainConfig, architecture: Architecture, tokenizer_bytes: int) -> dict[str, Any]:
    estimate = estimate_disk(config, architecture, tokenizer_bytes=tokenizer_bytes)
    free = free_bytes(config.run_dir)
    gate = judge("preflight.disk-space", lambda: check_disk(estimate, free, config.run_dir))
    facts: dict[str, Any] = {
        "peak_bytes": estimate.peak_bytes,
        "end_bytes": estimate.end_bytes,
        "checkpoint_bytes": estimate.checkpoint_bytes,
        "parts": estimate.parts,
        "free_bytes": free[0] if free else None,
    }
    if free is None:
        facts["free_bytes_reason"] = "the system does not say"
    else:
        facts["free_at"] = str(free[1])
    return facts | {"verdict": gate.verdict, "fix": gate.fix if gate.blocks else None}


def _flops(config: TrainConfig, architecture: Architecture) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for convention in CONVENTIONS:
        per_token = architecture.training_flops_per_token(config.seq_length, convention=convention)
        facts[f"per_token_{convention}"] = per_token
        facts[f"total_{convention}"] = per_token * config.planned_tokens
    return facts


def _time(config: TrainConfig, rate: Rate) -> dict[str, Any]:
    if rate.tokens_per_s is None:
        return {
            "tokens_per_s": None,
            "tokens_per_s_reason": rate.source,
            "hours": None,
            "hours_reason": rate.source,
        }
    return {
        "tokens_per_s": rate.tokens_per_s,
        "tokens_per_s_source": rate.source,
        "hours": config.planned_tokens / rate.tokens_per_s / 3600,
    }
