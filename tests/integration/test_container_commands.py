"""`apr inspect`, `validate` and `lint` from the command line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.container_files import GOLDEN, build, f32, version_1
from tests.container_models import LLAMA, hashes, model_file

from apr.cli.main import run


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    path = tmp_path / "golden.apr"
    path.write_bytes(GOLDEN)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    words = [f"word{number}" for number in range(LLAMA.vocab_size)]
    file = model_file(free={"tokenizer.vocabulary": words, "tokenizer.merges": []})
    file.set_free(hashes(file.arrays))
    return file.write(tmp_path / "model.apr")


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    code = run([*map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_inspect_as_json(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    code, found = answer(capsys, "inspect", model)
    assert code == 0
    assert found["num_parameters"] == LLAMA.num_parameters
    assert found["architecture"]["hidden_size"] == 8
    assert len(found["tensors"]) == 20
    assert found["metadata"]["num_layers"] == 2
    assert found["integrity"]["verified"]
    assert found["integrity"]["not_verified"]


def test_inspect_for_a_person(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    assert run(["inspect", str(model)]) == 0
    text = capsys.readouterr().out
    assert "LlamaForCausalLM: 2 layers" in text
    assert f"{LLAMA.num_parameters:,}" in text
    assert "word5" not in text
    assert "down_proj" not in text
    assert f"apr validate {model}" in text
    # The format has no null for a size: 0 is what it writes for one that nobody recorded.
    lines = dict(line.split(maxsplit=1) for line in text.splitlines() if " " in line.strip())
    assert lines["total_size"] == lines["license"] == "not recorded"
    assert lines["param_count"] == str(LLAMA.num_parameters)
    assert run(["inspect", str(model), "--tensors"]) == 0
    assert "model.layers.0.mlp.down_proj.weight" in capsys.readouterr().out


def test_the_provenance_can_be_read(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    assert run(["inspect", str(model)]) == 0
    assert "provenance               no provenance" in capsys.readouterr().out
    trained = {"what": "checkpoint", "step": 7, "run_record_sha256": "a" * 64}
    file = model_file(free={"apr.provenance": [trained]})
    file.write(model)
    words = ["stamp", str(model), "--license", "mit", "--author", "us", "--in-place", "--json"]
    assert run(words) == 0
    entry = json.loads(capsys.readouterr().out)["entry"]
    assert run(["inspect", str(model)]) == 0
    lines = [
        line.split(maxsplit=1)[1]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("provenance")
    ]
    assert lines[0] == f"1. checkpoint, step=7, run_record_sha256={'a' * 16}"
    assert lines[1].startswith(f"2. stamp, {entry['at']}, us, apr_version='0.1.0', fields=")
    assert "license: None -> 'MIT'" in lines[1]
    assert f"source_sha256={entry['source_sha256'][:16]}" in lines[1]
    assert len(lines) == 2
    file.set_free({"apr.provenance": [trained, entry | {"by": "them"}, 7]})
    file.write(model)
    assert run(["inspect", str(model)]) == 0
    assert "something else than a list of objects" in capsys.readouterr().out


def test_quality_is_a_report(capsys: pytest.CaptureFixture[str], golden: Path) -> None:
    code, found = answer(capsys, "inspect", golden, "--quality")
    assert (code, found["quality"]["score"], found["behaviour"]["verdict"]) == (0, 20, "UNKNOWN")
    assert "footer checksum" in found["integrity"]["verified"]
    assert found["integrity"]["not_verified"] == []
    assert answer(capsys, "inspect", golden)[1]["integrity"]["not_verified"]
    golden.write_bytes(GOLDEN[:-2])
    code, found = answer(capsys, "inspect", golden, "--quality")
    assert (code, found["refused"]["id"]) == (4, "container.length")


def test_a_huge_vocabulary_stays_out_of_the_text(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "x.apr"
    words = [f"word{number}" for number in range(100_000)]
    free = {"tokenizer.vocabulary": words, "other": words, "chat_template": "z" * 10_000}
    path.write_bytes(build(free, [f32("w", 1.0)]))
    assert run(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    assert len(text) < 3000
    assert "100000 tokens" in text
    assert "100000 entries" in text


def test_control_characters_do_not_reach_the_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "x.apr"
    path.write_bytes(build({"name": "\x1b[2J", "\x1bkey": 1}, [f32("\x1b[31m", 1.0)]))
    assert run(["inspect", str(path), "--tensors"]) == 0
    assert run(["validate", str(path)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_validate_a_sound_file(capsys: pytest.CaptureFixture[str], golden: Path) -> None:
    code, found = answer(capsys, "validate", golden)
    assert (code, found["verdict"]) == (0, "PASS")
    assert run(["validate", str(golden)]) == 0
    assert capsys.readouterr().out.startswith("PASS")


def test_validate_says_no(capsys: pytest.CaptureFixture[str], golden: Path) -> None:
    golden.write_bytes(GOLDEN[:330] + b"\1" + GOLDEN[331:])
    code, found = answer(capsys, "validate", golden)
    assert (code, found["verdict"]) == (5, "FAIL")
    golden.write_bytes(GOLDEN[:-4])
    code, found = answer(capsys, "validate", golden)
    assert (code, found["verdict"]) == (5, "UNKNOWN")
    assert run(["validate", str(golden)]) == 5
    text = capsys.readouterr().out
    assert "UNKNOWN  container.footer" in text
    assert "expected: a CRC-32" in text


@pytest.mark.parametrize("verb", ["inspect", "validate", "lint"])
@pytest.mark.parametrize(
    ("data", "id"),
    [
        (b"", "container.truncated"),
        (b"hello", "container.not-apr"),
        (GOLDEN[:100], "container.truncated"),
        (version_1(), "container.version-1"),
        (build(b'{"hidden_size":4.0}'), "container.metadata-value"),
    ],
)
def test_what_is_no_container_is_refused_as_one_object(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str, data: bytes, id: str
) -> None:
    path = tmp_path / "x.apr"
    path.write_bytes(data)
    code, found = answer(capsys, verb, path)
    assert (code, found["exit_code"], found["refused"]["id"]) == (4, 4, id)
    assert all(found["refused"][key] for key in ("where", "found", "expected", "fix"))
    assert run([verb, str(path)]) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"refused[{id}]")


@pytest.mark.parametrize("verb", ["inspect", "validate", "lint"])
def test_a_path_that_is_not_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: str
) -> None:
    code, found = answer(capsys, verb, tmp_path / "absent.apr")
    assert (code, found["refused"]["id"]) == (3, "files.not-found")
    code, found = answer(capsys, verb, tmp_path)
    assert (code, found["refused"]["id"]) == (3, "container.not-a-file")


@pytest.mark.parametrize("verb", ["inspect", "validate", "lint"])
def test_usage(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    code, found = answer(capsys, verb)
    assert (code, found["refused"]["id"]) == (2, "usage")


@pytest.mark.parametrize("verb", ["inspect", "validate", "lint"])
def test_nothing_heavy_is_loaded(golden: Path, verb: str) -> None:
    code = 5 if verb == "lint" else 0
    program = (
        "import sys; from apr.cli.main import run; "
        f"assert run(['{verb}', {str(golden)!r}, '--quiet']) == {code}; "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == ""


def test_lint_says_what_to_mend(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    code, found = answer(capsys, "lint", model)
    assert (code, found["verdict"]) == (5, "FAIL")
    assert found["counts"] == {"error": 0, "warning": 6, "info": 1}
    missing = next(f for f in found["findings"] if f["id"] == "lint.license-missing")
    assert missing["fix"] == f"apr stamp {model} --license SPDX -o OUT"
    assert run(["lint", str(model)]) == 5
    text = capsys.readouterr().out
    assert text.startswith("FAIL")
    assert "warning  lint.license-missing" in text
    assert f"mend: apr stamp {model} --license SPDX -o OUT" in text


@pytest.mark.parametrize(
    ("fail_on", "codes"), [("error", (0, 5)), ("warning", (5, 5)), ("never", (0, 0))]
)
def test_lint_fails_on_what_was_asked_for(
    capsys: pytest.CaptureFixture[str], model: Path, fail_on: str, codes: tuple[int, int]
) -> None:
    assert answer(capsys, "lint", model, "--fail-on", fail_on)[0] == codes[0]
    file = model_file(LLAMA)
    file.set(architecture="qwen2")
    file.write(model)
    assert answer(capsys, "lint", model, "--fail-on", fail_on)[0] == codes[1]


def test_diff_says_what_differs(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.apr"
    file = model_file()
    file.arrays["model.norm.weight"] = file.arrays["model.norm.weight"] * 1.5
    file.set(license="MIT")
    file.write(other)
    code, found = answer(capsys, "diff", model, model)
    assert (code, found["same"], found["compared_tensors"]) == (0, True, 20)
    code, found = answer(capsys, "diff", model, other)
    assert (code, found["same"], found["verdict"]) == (5, False, "FAIL")
    assert {each["key"] for each in found["metadata"]} >= {"license", "tokenizer.vocabulary"}
    assert [each["name"] for each in found["tensors"]["values"]] == ["model.norm.weight"]
    assert run(["diff", str(model), str(other), "--tolerance", "9"]) == 5
    text = capsys.readouterr().out
    assert text.startswith(f"different, beyond the tolerance of 9: {model}")
    assert "license (provenance): None | MIT" in text
    assert "model.norm.weight: 8 of 8 values differ, by" in text
    assert run(["diff", str(model), str(model)]) == 0
    assert capsys.readouterr().out.startswith("the same: ")


@pytest.mark.parametrize(
    ("tolerance", "id"), [("nan", "diff.tolerance"), ("-1", "diff.tolerance"), ("x", "usage")]
)
def test_a_tolerance_that_is_none(
    capsys: pytest.CaptureFixture[str], golden: Path, tolerance: str, id: str
) -> None:
    code, found = answer(capsys, "diff", golden, golden, "--tolerance", tolerance)
    assert (code, found["refused"]["id"]) == (2, id)


def test_diff_of_nothing_is_unknown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    path.write_bytes(build({}))
    code, found = answer(capsys, "diff", path, path, "--tolerance", "1")
    assert (code, found["verdict"], found["same"]) == (5, "UNKNOWN", False)
    assert run(["diff", str(path), str(path)]) == 5
    assert capsys.readouterr().out.startswith("unknown: nothing to compare")


@pytest.mark.parametrize("is_second", [True, False])
def test_diff_refuses_what_is_no_container(
    capsys: pytest.CaptureFixture[str], golden: Path, tmp_path: Path, is_second: bool
) -> None:
    absent = tmp_path / "absent.apr"
    pair = (golden, absent) if is_second else (absent, golden)
    code, found = answer(capsys, "diff", *pair)
    assert (code, found["refused"]["id"]) == (3, "files.not-found")
