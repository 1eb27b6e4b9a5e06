"""F41: gates that fail open. Nothing looked at is UNKNOWN, and UNKNOWN blocks."""

import json
from pathlib import Path

import pytest
from tests.container_files import build, f32

from apr.cli.main import run
from apr.container.inspecting.lint import lint

Captured = pytest.CaptureFixture[str]
COMPLETE = {
    "name": "a model",
    "description": "x",
    "license": "MIT",
    "data_source": "x",
    "data_license": "MIT",
    "apr.provenance": [{"what": "import"}],
}


@pytest.mark.parametrize("fail_on", ["error", "warning", "never"])
def test_a_linter_over_nothing_does_not_pass(
    tmp_path: Path, capsys: Captured, fail_on: str
) -> None:
    path = tmp_path / "x.apr"
    path.write_bytes(build(COMPLETE))
    assert run(["lint", str(path), "--fail-on", fail_on, "--json"]) == 5
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["num_tensors"]) == ("UNKNOWN", 0)
    path.write_bytes(build(COMPLETE, [f32("a", 1.0)]))
    assert run(["lint", str(path), "--fail-on", fail_on, "--json"]) == 0


def test_rules_without_a_subject_are_listed_and_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    path.write_bytes(build(COMPLETE, [f32("a", 1.0)]))
    found = lint(path)
    assert found.not_applied == ("identity", "tokenizer")
    assert len(found.applied) == 6


def test_a_directory_instead_of_a_file(tmp_path: Path, capsys: Captured) -> None:
    assert run(["lint", str(tmp_path), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["refused"]["id"] == "container.not-a-file"
