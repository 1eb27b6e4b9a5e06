"""What the sections found, as the file of rates that `apr plan --rates` reads."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from apr.train.acceleration import Acceleration
from apr.train.device_rates import SCHEMA, DeviceRates
from apr.train.devices import Device, device_reported_as
from gpu_sections.setting import Setting

_BACKENDS = ("CUDNN_ATTENTION", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "varlen")


def known_card(device: torch.device) -> Device | None:
    """The card, where its sheet is known by exactly its name."""
    return device_reported_as(reported_name(device))


def reported_name(device: torch.device) -> str:
    """What a run's record calls the device."""
    environment = Acceleration(device, torch.bfloat16, False, ()).environment()
    return environment["device_name"]


def measured_rates(setting: Setting) -> DeviceRates | None:
    """What was measured so far in the same directory; None where too little was."""
    try:
        return DeviceRates.model_validate(rates_record(setting))
    except ValueError:
        return None


def rates_record(setting: Setting) -> dict[str, Any]:
    """The object of the file; a rate that was not measured is null, with its reason."""
    products = _results(setting.directory / "matmuls.json")
    traffic = _results(setting.directory / "traffic.json")
    length = setting.sizes.attention[0]
    forward, backward = _attention(_results(setting.directory / "attention.json"), length)
    found: dict[str, Any] = {
        "body_flops_per_s": _rate(products, "body as the model computes it", "flops_per_s"),
        "head_flops_per_s": _rate(products, "head", "flops_per_s"),
        "attention_forward_flops_per_s": forward,
        "attention_backward_flops_per_s": backward,
        "elementwise_bytes_per_s": _rate(traffic, "elementwise of a block", "bytes_per_s"),
        "copy_bytes_per_s": _rate(traffic, "copy", "bytes_per_s"),
    }
    singles = [
        rate for each in products.values() for rate in each.get("flops_per_s_of", {}).values()
    ]
    shape, card = setting.architecture, known_card(setting.device)
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads",
             "head_dim", "vocab_size")  # fmt: skip
    return {
        "schema": SCHEMA,
        "device": card.name if card else setting.device.type,
        "device_name": reported_name(setting.device),
        "measured_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "software": {"torch": torch.__version__} | _cuda_versions(),
        "shape": {name: getattr(shape, name) for name in names}
        | {"sequence_length": length, "micro_batch_tokens": setting.sizes.gemm_tokens},
        "matmul_ceiling_flops_per_s": max(singles, default=0.0),
        "rates": {name: rate if isinstance(rate, float) else None for name, rate in found.items()},
        "missing": {name: rate for name, rate in found.items() if isinstance(rate, str)},
    }


def _results(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    return {each["what"]: each for each in json.loads(path.read_text("utf-8"))["results"]}


def _rate(results: dict[str, dict[str, Any]], what: str, key: str) -> float | str:
    result = results.get(what, {"missing": "not measured"})
    return result["missing"] if "missing" in result else result[key]


def _attention(results: dict[str, dict[str, Any]], length: int) -> tuple[float | str, float | str]:
    """The backend that is fastest over both directions, as one run uses one."""
    usable = [
        each
        for what, each in results.items()
        if what.startswith(_BACKENDS) and each.get("length") == length
    ]
    if not usable:
        reason = "no backend was measured at this length"
        return reason, reason
    fastest = min(usable, key=lambda each: each["forward_s"] + each["backward_s"])
    return fastest["forward_flops_per_s"], fastest["backward_flops_per_s"]


def _cuda_versions() -> dict[str, str]:
    return {"cuda": torch.version.cuda} if torch.version.cuda else {}
