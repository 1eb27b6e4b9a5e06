"""`apr bench`: what each command says as a table and as JSON, refuses, and leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.bench_sides import tiny_work
from tests.container_models import model_file
from tests.hf_models import hf_model
from tests.run_data import RunData

from apr.bench.parts import PART_NAMES
from apr.bench.peers import measure_peer
from apr.cli.main import run

pytestmark = pytest.mark.slow

Captured = pytest.CaptureFixture[str]
TINY = ("--arch", "tiny", "--vocab-size", 300, "--device", "cpu")
STEPS = ("--batch-size", 2, "--seq-length", 32, "--precision", "fp32", "--no-compile", "--steps", 3)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that must stay empty, and one for temporary files that must be empty again."""
    place, scratch = tmp_path / "here", tmp_path / "scratch"
    place.mkdir()
    scratch.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", None)
    return place


def bench(capsys: Captured, *words: object, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    found = run(["bench", *map(str, words), "--json"])
    captured = capsys.readouterr()
    assert found == code, captured.err
    return json.loads(captured.out)


def require_nothing_left(here: Path) -> None:
    assert list(here.iterdir()) == []
    left = [path.name for path in (here.parent / "scratch").iterdir()]
    assert [name for name in left if name.startswith("apr-bench-")] == []


def test_training_beside_a_plain_loop(here: Path, capsys: Captured) -> None:
    facts = bench(capsys, "train", *TINY, *STEPS, "--warmup-steps", 1, "--against", "plain")
    assert facts["valid"], [side["invalid"] for side in facts["sides"].values()]
    assert list(facts["sides"]) == ["apr", "plain"]
    ours = facts["sides"]["apr"]
    assert ours["num_parameters"] == facts["model"]["num_parameters"]
    assert ours["step_s"]["num_steps"] == 3
    assert ours["tokens_per_s"] == pytest.approx(64 / ours["step_s"]["median"])
    assert ours["settings"]["precision"] == "fp32"
    mfu = ours["mfu"]
    assert 0.0 < mfu["causal"] < mfu["conventional"] <= 1.0
    assert mfu["ceiling"]["precision"] == "fp32"
    assert mfu["conventional"] == pytest.approx(
        ours["tokens_per_s"]
        * facts["flops_per_token"]["conventional"]
        / mfu["ceiling"]["flops_per_s"]
    )
    assert ours["peak_memory_bytes"] is None or ours["peak_memory_bytes"] > 1 << 20
    assert facts["ratios"]["plain"]["median"] > 0
    assert facts["gradients"]["verdict"] == "PASS"
    parts = facts["parts"]
    assert parts["reasons"] == {}
    assert sum(parts["seconds"].values()) == pytest.approx(parts["step_s"])
    assert all(parts["seconds"][name] > 0 for name in PART_NAMES)
    assert facts["checkpoint"]["copy_s"] > 0
    assert facts["before"]["num_cores"] == os.cpu_count()
    require_nothing_left(here)


def test_training_for_a_person(here: Path, capsys: Captured) -> None:
    assert run(["bench", "train", *map(str, (*TINY, *STEPS)), "--quiet"]) == 0
    captured = capsys.readouterr()
    assert "MFU is of a measured ceiling of" in captured.out
    assert "elementwise" in captured.out
    assert "next:\n  apr bench checkpoint --arch tiny --vocab-size 300" in captured.out
    assert captured.err == ""
    require_nothing_left(here)


@pytest.mark.skipif(find_spec("accelerate") is None, reason="accelerate is not installed")
@pytest.mark.filterwarnings("ignore")
def test_the_trainer_of_hugging_face_does_the_same_work() -> None:
    work = tiny_work(vocab_size=300, precision="fp32", compile=False)
    side = measure_peer("hf-trainer", work)
    assert side.problems(work) == []
    assert len(side.step_s) == work.num_steps
    assert side.settings["precision"] == "fp32"


def test_saving_while_training(here: Path, capsys: Captured) -> None:
    facts = bench(
        capsys, "checkpoint", *TINY, *STEPS, "--rounds", 1, "--against", "plain",
        "--directory", here,
    )  # fmt: skip
    assert list(facts["ways"]) == ["beside", "waited for", "plain"]
    for costs in facts["ways"].values():
        assert costs["written_bytes"] > 12 * facts["num_parameters"]
        assert costs["stall_s"] > 0
        assert costs["bytes_per_s"] > 0
    assert facts["ways"]["waited for"]["fraction_at_most"] == pytest.approx(
        facts["ways"]["waited for"]["stall_fraction"]
    )
    require_nothing_left(here)


def test_loading_a_made_up_model(here: Path, capsys: Captured) -> None:
    words = ("--arch", "tiny", "--vocab-size", 300, "--rounds", 1, "--against", "safetensors")
    facts = bench(capsys, "load", *words)
    assert facts["valid"]
    assert facts["import_s"] is None
    for side in facts["sides"].values():
        assert side["file_bytes"] > 4 * facts["num_parameters"]
        assert side["elapsed_s"] > 0
    require_nothing_left(here)


def test_loading_models_that_are_there(here: Path, tmp_path: Path, capsys: Captured) -> None:
    facts = bench(capsys, "load", model_file().write(tmp_path / "m.apr"), "--rounds", 1)
    assert list(facts["sides"]) == ["apr"]
    directory = hf_model().write(tmp_path / "hf")
    words = ("load", directory, "--rounds", 1, "--against", "transformers")
    facts = bench(capsys, *words)
    assert facts["valid"], "both sides read the same weights"
    assert facts["import_s"]["proof"] > 0
    require_nothing_left(here)


def test_encoding_beside_the_reference(run_data: RunData, here: Path, capsys: Captured) -> None:
    words = ("--tokenizer", run_data.tokenizer, "--corpus", run_data.root / "val.jsonl")
    facts = bench(capsys, "tokenize", *words, "--megabytes", 1, "--against", "hf")
    assert facts["valid"]
    assert facts["sides"]["hf"]["encoder"] == "tokenizers"
    assert facts["sides"]["apr"]["tokens_per_s"] > 0
    assert facts["ratios"]["hf"]["median"] > 0
    assert facts["num_tokens"] > 1000
    require_nothing_left(here)


@pytest.mark.parametrize(
    ("words", "id", "code"),
    [
        (("train", "--against", "nobody"), "bench.unknown-peer", 2),
        (("tokenize", "--against", "plain"), "bench.unknown-peer", 2),
        (("checkpoint", "--against", "hf-trainer"), "bench.unknown-peer", 2),
        (("load", "--against", "plain"), "bench.unknown-peer", 2),
        (("train", "--arch", "nothing"), "config.unknown-preset", 2),
        (("train", "--device", "banana"), "config.device", 2),
        (("checkpoint", "--device", "cuda:15"), "config.device-unavailable", 5),
        (("train", "--device", "cpu", "--seq-length", 4096), "config.sequence-too-long", 2),
        (("train", "--device", "cpu", "--grad-accum", 3), "config.batch-not-divisible", 2),
        (
            ("train", "--device", "cpu", "--arch", "qwen2-7b", "--batch-size", 1 << 20),
            "preflight.memory",
            5,
        ),
        (("load", "missing.apr"), "files.not-found", 3),
        (("checkpoint", "--directory", "missing"), "files.not-found", 3),
        (("tokenize", "--corpus", "missing"), "files.not-found", 3),
        (("train", "--share-settings"), "usage", 2),
        (("train", "--steps", 1), "usage", 2),
        (("load", "x.apr", "--arch", "tiny"), "usage", 2),
    ],
)
def test_what_cannot_be_measured_is_refused(
    words: tuple[object, ...], id: str, code: int, here: Path, capsys: Captured
) -> None:
    assert bench(capsys, *words, code=code)["refused"]["id"] == id
    require_nothing_left(here)


@pytest.mark.skipif(find_spec("litgpt") is not None, reason="litgpt is installed")
def test_a_peer_that_is_not_installed_is_named(capsys: Captured) -> None:
    refused = bench(capsys, "train", "--device", "cpu", "--against", "plain,litgpt", code=9)
    assert refused["refused"]["id"] == "bench.peer-missing"
    assert "pip install litgpt" in refused["refused"]["fix"]


def test_a_stop_leaves_nothing(here: Path) -> None:
    """Ctrl-C while a side is measured: its process ends too, and its files are gone."""
    command = [sys.executable, "-m", "apr", "bench", "train", *map(str, (*TINY, *STEPS))]
    command[command.index("--steps") + 1] = "100000"
    environment = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as started:
        scratch = here.parent / "scratch"
        until_s = time.monotonic() + 60
        while not list(scratch.glob("apr-bench-*/shards")) and time.monotonic() < until_s:
            time.sleep(0.05)
        started.send_signal(signal.SIGINT)
        _, said = started.communicate(timeout=60)
    assert started.returncode == 130, said
    assert b"interrupted" in said
