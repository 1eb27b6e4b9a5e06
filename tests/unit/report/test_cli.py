"""`apr report RUN`, as a person or a script calls it."""

import json
from pathlib import Path

import pytest
from tests.unit.report.synthetic_run import step_lines, write_run

from apr.cli.main import run


def test_the_page_is_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = write_run(tmp_path / "run", None, step_lines(20, eval_every=10))
    page = run_dir / "report.html"
    page.write_text("an old page")
    assert run(["report", str(run_dir)]) == 0
    assert capsys.readouterr().out == f"wrote {page} ({page.stat().st_size / 1024:.3g} KiB)\n"
    assert "Budget exhausted" in page.read_text()


def test_json_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = write_run(tmp_path / "run", None, [])
    assert run(["report", str(run_dir), "--json"]) == 0
    page = run_dir / "report.html"
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"report": str(page), "size_bytes": page.stat().st_size}


@pytest.mark.parametrize("make", ["nothing", "empty directory", "file"])
def test_what_is_no_run_is_not_found(
    make: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    if make == "file":
        path.write_text("{}")
    elif make == "empty directory":
        path.mkdir()
    assert run(["report", str(path), "--json"]) == 3
    answer = json.loads(capsys.readouterr().out)
    assert answer["exit_code"] == 3
    assert answer["refused"]["id"] == "run.not-found"
    assert not (path / "report.html").exists()


def test_a_damaged_record_is_refused_and_the_old_page_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = write_run(tmp_path / "run", {"schema": "apr-run-v1", "gates": "none"}, [])
    (run_dir / "report.html").write_text("an old page")
    assert run(["report", str(run_dir)]) == 4
    assert "refused[run.record-damaged]" in capsys.readouterr().err
    assert (run_dir / "report.html").read_text() == "an old page"
    assert sorted(path.name for path in run_dir.iterdir()) == [
        "report.html", "run.json", "steps.jsonl",
    ]  # fmt: skip


def test_a_page_that_cannot_be_written_is_an_io_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = write_run(tmp_path / "run", None, [])
    (run_dir / "report.html").mkdir()
    assert run(["report", str(run_dir)]) == 7
    assert "refused[files.io-failed]" in capsys.readouterr().err
