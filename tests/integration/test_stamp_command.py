"""`apr stamp` from the command line, to a model that runs."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.container_models import model_file
from tests.tokenizer_files import tokenizer, write

from apr.architecture import preset
from apr.cli.main import run
from apr.container.reader import Container

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def nameless(tmp_path: Path) -> Path:
    """A checkpoint as a fallback wrote it: no identity, no licence, no tokenizer."""
    size = tokenizer().vocab_size
    shape = replace(preset("tiny", tokenizer_vocab_size=size), max_position_embeddings=64)
    file = model_file(shape)
    file.set(architecture=None, hf_architecture=None, hf_model_type=None)
    return file.write(tmp_path / "nameless.apr")


def answer(capsys: Captured, *arguments: object) -> tuple[int, dict[str, Any]]:
    code = run([*map(str, arguments), "--json", "--quiet"])
    return code, json.loads(capsys.readouterr().out)


def test_a_nameless_checkpoint_is_rescued(capsys: Captured, tmp_path: Path, nameless: Path) -> None:
    code, found = answer(capsys, "inspect", nameless)
    assert (code, found["architecture"]) == (0, None)
    assert "no hf_architecture, hf_model_type" in found["architecture_reason"]
    code, found = answer(capsys, "run", nameless, "he")
    assert (code, found["refused"]["id"]) == (5, "container.architecture-missing")
    stamp = [
        "stamp", nameless, "--hf-architecture", "LlamaForCausalLM", "--hf-model-type", "llama",
        "--architecture", "llama", "--tokenizer", write(tmp_path / "tok"), "--license", "mit",
        "--data-source", "nothing", "--data-license", "CC0-1.0", "--pretraining-tokens", 7,
        "--name", "n", "--author", "a", "--description", "d", "-o", tmp_path / "named.apr",
    ]  # fmt: skip
    code, found = answer(capsys, *stamp)
    assert code == 0, found
    assert found["fields"]["license"] == {"from": None, "to": "MIT"}
    assert found["identity"]["verdict"] == "PASS"
    assert found["output"]["path"] == str(tmp_path / "named.apr")
    code, found = answer(capsys, "run", tmp_path / "named.apr", "he", "-n", 5)
    assert code == 0, found
    assert len(found["token_ids"]) == 5
    assert answer(capsys, "validate", tmp_path / "named.apr")[1]["verdict"] == "PASS"


def test_stamp_for_a_person(capsys: Captured, nameless: Path) -> None:
    assert run(["stamp", str(nameless), "--license", "MIT", "--in-place"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"stamped: {nameless}\n  license: None -> MIT\n")
    assert "identity UNKNOWN: none of architecture" in text
    assert "equal to the byte when read back" in text
    assert f"apr inspect {nameless}" in text


@pytest.mark.parametrize(
    ("options", "code", "id"),
    [
        (["--license", "MIT"], 2, "usage"),
        (["--license", "MIT", "--in-place", "-o", "x.apr"], 2, "usage"),
        (["--license", "MIT", "--in-place", "--overwrite"], 2, "usage"),
        (["--pretraining-tokens", "0", "--in-place"], 2, "usage"),
        (["--in-place"], 2, "stamp.nothing-to-stamp"),
        (["--license", "", "--in-place"], 2, "stamp.nothing-to-stamp"),
        (["--license", "Apache 2", "--in-place"], 2, "stamp.not-spdx"),
        (["--license", "MIT", "-o", "nameless.apr"], 2, "files.output-overlaps-input"),
        (["--license", "MIT", "--force", "-o", "."], 3, "container.not-a-file"),
        (["--architecture", "qwen2", "--in-place"], 5, "stamp.identity-contradicts-tensors"),
        (["--tokenizer", "absent", "--in-place"], 3, "files.not-found"),
    ],
)
def test_what_makes_no_sense_is_refused_as_one_object(
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    nameless: Path,
    options: list[str],
    code: int,
    id: str,
) -> None:
    monkeypatch.chdir(nameless.parent)
    before = nameless.read_bytes()
    found_code, found = answer(capsys, "stamp", "nameless.apr", *options)
    assert (found_code, found["exit_code"], found["refused"]["id"]) == (code, code, id)
    assert [path.name for path in nameless.parent.iterdir()] == ["nameless.apr"]
    assert nameless.read_bytes() == before


@pytest.mark.parametrize("words", [["--in-place"], ["-o", "new/stamped.apr"]])
def test_a_full_disk_costs_nothing_that_was_there(
    monkeypatch: pytest.MonkeyPatch, nameless: Path, words: list[str]
) -> None:
    monkeypatch.chdir(nameless.parent)
    before = nameless.read_bytes()
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from apr.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", program, "stamp", "nameless.apr", "--license", "MIT"]
    done = subprocess.run([*command, *words, "--json"], capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert json.loads(done.stdout)["refused"]["id"] == "files.io-failed"
    assert nameless.read_bytes() == before
    assert [path.name for path in nameless.parent.rglob("*") if path.is_file()] == ["nameless.apr"]


def test_stamping_needs_no_torch(nameless: Path) -> None:
    program = (
        "import sys; from apr.cli.main import run; "
        f"assert run(['stamp', {str(nameless)!r}, '--name', 'x', '--in-place', '--quiet']) == 0; "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    with Container.open(nameless) as container:
        assert container.metadata.name == "x"
