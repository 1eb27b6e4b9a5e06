"""F28, F39: a run whose steps were skipped does not end as one that took them all."""

import json
from pathlib import Path

import pytest
from tests.run_data import RunData

from apr.cli.main import run


def test_a_run_that_applied_almost_nothing_says_so(
    run_data: RunData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    flags = [*run_data.flags(run_dir), "--lr", "1e30", "--warmup-steps", "0", "--eval-every", "8"]
    code = run(["pretrain", *flags, "--max-skipped-steps", "100", "--quiet"])
    record = json.loads((run_dir / "run.json").read_text())
    assert code == 0, record["outcome_detail"]
    told = capsys.readouterr().out
    applied, skipped = record["num_applied_steps"], record["num_skipped_steps"]
    assert applied + skipped == 8
    assert skipped > 0
    assert "budget_exhausted: no planned step is left" in told
    assert f"of 8 steps {applied} changed the weights; {skipped} could not be applied" in told
    assert "contradict" not in (run_dir / "report.html").read_text()


def test_a_run_that_applied_every_step_says_nothing_of_skips(
    run_data: RunData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pretrain", *run_data.flags(tmp_path / "run"), "--quiet"]) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["num_applied_steps"], record["num_skipped_steps"]) == (8, 0)
    told = capsys.readouterr().out
    assert "budget_exhausted: all planned steps were taken" in told
    assert "could not be applied" not in told
