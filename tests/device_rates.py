"""A file of rates as `benchmarks/gpu.py` writes one."""

import json
from pathlib import Path
from typing import Any


def rates_record(**changes: Any) -> dict[str, Any]:
    """Plausible rates of an H200 at the shape of Qwen2.5-0.5B; `changes` replace top-level keys."""
    record: dict[str, Any] = {
        "schema": "apr-device-rates-v1",
        "device": "h200",
        "device_name": "NVIDIA H200",
        "measured_at": "2026-11-29T12:00:00Z",
        "software": {"torch": "2.11.0+cu130"},
        "shape": {
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "vocab_size": 151_936,
            "sequence_length": 2048,
            "micro_batch_tokens": 65_536,
        },
        "matmul_ceiling_flops_per_s": 7.9e14,
        "rates": {
            "body_flops_per_s": 6.1e14,
            "head_flops_per_s": 7.1e14,
            "attention_forward_flops_per_s": 4.0e14,
            "attention_backward_flops_per_s": 3.6e14,
            "elementwise_bytes_per_s": 3.3e12,
            "copy_bytes_per_s": 4.2e12,
        },
        "missing": {},
    }
    return record | changes


def write_rates(path: Path, **changes: Any) -> Path:
    """The same as a file."""
    path.write_text(json.dumps(rates_record(**changes)), encoding="utf-8")
    return path
