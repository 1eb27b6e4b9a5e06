"""`benchmarks/gpu.py` from end to end without a GPU: it keeps what it has, whatever fails."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from apr.train.device_rates import read_device_rates

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SECTIONS = {
    "matmuls", "traffic", "attention", "training", "proofs", "hf_trainer", "checkpoints",
}  # fmt: skip


def ran(script: Path, output: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), "-o", str(output), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def results_of(output: Path) -> dict[str, dict[str, dict[str, Any]]]:
    whole = json.loads((output / "gpu.json").read_text())
    return {
        section: {each["what"]: each for each in results}
        for section, results in whole["results"].items()
    }


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    output = tmp_path_factory.mktemp("gpu") / "results"
    done = ran(BENCHMARKS / "gpu.py", output, "--dry-run", "--together")
    assert done.returncode == 0, done.stdout + done.stderr
    return output, done.stdout


def test_every_section_measures_something(dry_run: tuple[Path, str]) -> None:
    output, table = dry_run
    ends = json.loads((output / "gpu.json").read_text())["sections"]
    assert set(ends) == SECTIONS
    assert {end["ended"] for end in ends.values()} == {"done"}
    found = results_of(output)
    for section in SECTIONS:
        assert any("missing" not in each for each in found[section].values()), section
        assert f"\n{section}: done" in table
    assert {each["verdict"] for each in found["proofs"].values()} == {"PASS"}
    assert len(found["proofs"]) == 5
    # Only what a CPU has no kernel for may be missing.
    assert {
        (section, what.partition(" ")[0])
        for section, results in found.items()
        for what, each in results.items()
        if "missing" in each
    } <= {("attention", name) for name in ("CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "varlen")}
    assert "no figure below means anything" in table


def test_its_rates_are_a_file_that_a_plan_reads(dry_run: tuple[Path, str]) -> None:
    rates = read_device_rates(dry_run[0] / "rates.json", device="cpu")
    assert rates.missing == {}
    products = results_of(dry_run[0])["matmuls"]
    assert (
        rates.measured("body_flops_per_s")
        == (products["body as the model computes it"]["flops_per_s"])
    )
    assert rates.matmul_ceiling_flops_per_s == max(
        speed for each in products.values() for speed in each.get("flops_per_s_of", {}).values()
    )


def test_its_products_are_those_of_the_model(dry_run: tuple[Path, str]) -> None:
    """F40: a speed from the wrong formula."""
    from apr.architecture import preset

    shape = preset("tiny", tokenizer_vocab_size=256)
    found = results_of(dry_run[0])["matmuls"]
    head = shape.vocab_size * shape.hidden_size
    per_token = {name: found[name]["flops"] / found[name]["rows"] for name in found if (
        "flops" in found[name])}  # fmt: skip
    fused = ("q k v fused", "o", "gate up fused", "down")
    body = shape.num_hidden_layers * sum(per_token[name] for name in fused)
    assert body == 6 * (shape.num_matmul_parameters() - head)
    assert per_token["head"] == 6 * head
    assert per_token["q k v fused"] == sum(per_token[name] for name in "qkv")
    assert per_token["gate up fused"] == per_token["gate"] + per_token["up"]


def test_a_section_that_crashes_loses_itself_alone(tmp_path: Path) -> None:
    planted = tmp_path / "benchmarks"
    shutil.copytree(BENCHMARKS, planted, ignore=shutil.ignore_patterns("__pycache__"))
    section = planted / "gpu_sections" / "traffic.py"
    noted = '    setting.attempt("copy", lambda: _copy(setting))\n'
    assert noted in section.read_text()
    crash = f"{noted}    __import__('os').abort()\n"
    section.write_text(section.read_text().replace(noted, crash))
    words = ("--dry-run", "--section", "traffic", "matmuls")
    done = ran(planted / "gpu.py", tmp_path / "results", *words)
    assert done.returncode == 1
    assert "failed: traffic" in done.stdout
    found = results_of(tmp_path / "results")
    assert "bytes_per_s" in found["traffic"]["copy"], "what was measured before the crash stays"
    assert "flops_per_s" in found["matmuls"]["head"]
    rates = read_device_rates(tmp_path / "results" / "rates.json", device="cpu")
    assert rates.measured("elementwise_bytes_per_s") is None
    attention = {f"attention_{way}_flops_per_s" for way in ("forward", "backward")}
    assert set(rates.missing) == {"elementwise_bytes_per_s", *attention}


def test_nothing_is_measured_on_a_cpu_without_being_asked(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    done = ran(BENCHMARKS / "gpu.py", tmp_path, "--section", "matmuls", "--together")
    assert done.returncode == 1
    assert "no CUDA device" in done.stderr


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from gpu_sections.setting import Setting

    return Setting("section", tmp_path, torch.device("cpu"), True, time.monotonic() + 60)


@pytest.mark.parametrize(
    ("options", "is_right"), [({"is_causal": True}, True), ({"is_causal": False}, False)]
)
def test_an_attention_that_is_wrong_has_no_speed(
    setting: Any, options: dict[str, bool], is_right: bool
) -> None:
    from gpu_sections.attention import _measured

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return scaled_dot_product_attention(q, k, v, enable_gqa=True, **options)

    found = _measured(setting, attend, length=32)
    assert ("forward_flops_per_s" in found) == is_right
    assert found.get("missing", "").startswith("wrong") != is_right


def test_what_fails_is_noted_and_the_next_one_goes_on(setting: Any, tmp_path: Path) -> None:
    def fails() -> dict[str, Any]:
        raise RuntimeError("no kernel\nand many more words")

    setting.attempt("one", fails)
    setting.attempt("two", lambda: {"bytes_per_s": 1.0})
    setting.until_s = time.monotonic() - 1
    setting.attempt("three", lambda: {"bytes_per_s": 1.0})
    written = json.loads((tmp_path / "section.json").read_text())["results"]
    assert written == [
        {"what": "one", "missing": "RuntimeError: no kernel"},
        {"what": "two", "bytes_per_s": 1.0},
        {"what": "three", "missing": "out of time"},
    ]


@pytest.mark.parametrize(("last_s", "is_begun"), [(30.0, True), (90.0, False)])
def test_what_would_be_cut_off_is_not_begun(setting: Any, last_s: float, is_begun: bool) -> None:
    setting.last_s = last_s
    setting.attempt("next", lambda: {"bytes_per_s": 1.0})
    assert ("missing" not in setting.results[-1]) == is_begun
    assert (setting.last_s < last_s) == is_begun
