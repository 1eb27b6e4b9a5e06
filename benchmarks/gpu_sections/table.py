"""The end: DIR/rates.json, DIR/gpu.json, and the table."""

import importlib.util
import json
import platform
from typing import Any

import torch

from gpu_sections.rates import measured_rates, rates_record, reported_name
from gpu_sections.setting import Setting

_PACKAGES = ("pydantic", "orjson", "zstandard", "tokenizers", "safetensors", "transformers",
             "accelerate", "triton")  # fmt: skip


def finish(setting: Setting, ends: dict[str, dict[str, Any]]) -> int:
    """Write what was found together and print it; the exit code."""
    found = {name: _results(setting, name) for name in ends}
    machine = {
        "device": reported_name(setting.device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "packages": {name: importlib.util.find_spec(name) is not None for name in _PACKAGES},
        "is_dry_run": setting.is_dry_run,
    }
    whole = {"machine": machine, "sections": ends, "results": found}
    _write(setting, "gpu.json", whole)
    print(f"{machine['device']}, torch {machine['torch']}, Python {machine['python']}")
    if setting.is_dry_run:
        print("DRY RUN: a tiny shape on the CPU; no figure below means anything")
    for name, results in found.items():
        print(f"\n{name}: {ends[name]['ended']}, {ends[name]['elapsed_s']:.0f} s")
        for result in results:
            print(f"  {result['what']:<34} {_words(result)}")
    if measured_rates(setting) is not None:
        _write(setting, "rates.json", rates_record(setting))
    print("\n" + "\n".join([*_ratios(found), _rates_words(setting)]))
    failed = [name for name, end in ends.items() if end["ended"] != "done"]
    unproven = [each["what"] for each in found.get("proofs", []) if each.get("verdict") != "PASS"]
    for words, names in (("failed", failed), ("not proven", unproven)):
        if names:
            print(f"{words}: {', '.join(names)}")
    return 1 if failed or unproven else 0


def _words(result: dict[str, Any]) -> str:
    """One result in a line: its speeds, what it was held against, or why there is none."""
    if "missing" in result:
        return f"not measured: {result['missing']}"
    if "verdict" in result:
        return f"{result['verdict']}  {result['found']}"
    told = [
        _written(key, value)
        for key, value in (*result.items(), *_nested(result))
        if isinstance(value, int | float)
    ]
    reason = result.get("share_of_predicted_reason")
    # Kernels that could not be compiled, say, make another figure of it.
    notices = result.get("notices", ())
    return "  ".join([*filter(None, told), *([reason] if reason else []), *notices])


def _nested(result: dict[str, Any]) -> list[tuple[str, Any]]:
    speeds, shares = result.get("flops_per_s_of", {}), result.get("mfu") or {}
    return [(f"{name} flops_per_s", value) for name, value in speeds.items()] + [
        (f"{name} share", value) for name, value in shares.items()
    ]


def _written(key: str, value: float) -> str:
    """A number with the unit that its name ends in; nothing for one that belongs in the file."""
    for ending, divisor, unit, spec in (
        ("tokens_per_s", 1, " tokens/s", ",.0f"),
        ("flops_per_s", 1e12, " TFLOP/s", ".4g"),
        ("bytes_per_s", 1e12, " TB/s", ".4g"),
        ("peak_bytes", 1e9, " GB at the peak", ".1f"),
        ("share_of_predicted", 0.01, "% of predicted", ".3g"),
        ("share", 0.01, "%", ".3g"),
        ("stall_s", 1, " s of stall", ".3g"),
        ("written_in_s", 1, " s beside the training", ".3g"),
        ("first_step_s", 1, " s for the first step", ".3g"),
        ("error", 1, " off", ".1e"),
    ):
        if key.endswith(ending):
            name = key.removesuffix(ending).strip("_ ")
            return f"{name} {value / divisor:{spec}}{unit}".strip()
    return ""


def _ratios(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The best of apr over the best of Trainer, wherever both were measured."""
    best: dict[str, dict[int, float]] = {}
    for name in ("training", "hf_trainer"):
        for each in found.get(name, []):
            # A run hides documents unless it is told not to.
            if "tokens_per_s" in each and each.get("document_mask", True):
                speeds = best.setdefault(name, {})
                length = each["sequence_length"]
                speeds[length] = max(speeds.get(length, 0.0), each["tokens_per_s"])
    ours, theirs = best.get("training", {}), best.get("hf_trainer", {})
    return [
        f"sequence {length}: {ours[length] / theirs[length]:.2f} times Trainer at its best batch"
        for length in sorted(ours.keys() & theirs.keys())
    ]


def _rates_words(setting: Setting) -> str:
    path = setting.directory / "rates.json"
    if not path.is_file():
        return "no rates: too little was measured"
    device = json.loads(path.read_text("utf-8"))["device"]
    if device == "cuda":
        return f"rates: {path}; apr knows no card of this name, so plan has no use for them"
    return f"rates: apr plan --device {device} --rates {path}"


def _results(setting: Setting, name: str) -> list[dict[str, Any]]:
    path = setting.directory / f"{name}.json"
    return json.loads(path.read_text("utf-8"))["results"] if path.is_file() else []


def _write(setting: Setting, name: str, data: dict[str, Any]) -> None:
    path = setting.directory / name
    path.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
