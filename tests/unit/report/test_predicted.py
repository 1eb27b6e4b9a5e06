"""What was predicted before step 1 stands beside what was measured."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.compared_runs import finished_run, row_losses
from tests.unit.report.page_reader import Page
from tests.unit.report.synthetic_run import run_record, write_run

from apr.cli.main import run
from apr.report.page import write_report

PREDICTED = {
    "tokens_per_s": 149_401.0,
    "tokens_per_s_lowest": 128_739.0,
    "tokens_per_s_highest": 165_003.0,
    "tokens_per_s_ceiling": 243_000.0,
    "device": "h200",
    "source": "the roofline of h200 (assumed rates)",
}


def numbers(tmp_path: Path, tokens_per_s: float | None, **changes: Any) -> str:
    throughput = {"tokens_per_s": tokens_per_s, "tokens_per_s_reason": "the run has not ended"}
    record = run_record(throughput=throughput, **changes)
    return Page(write_report(write_run(tmp_path / "run", record, []))).texts["numbers"]


def test_a_page_says_how_much_was_reached(tmp_path: Path) -> None:
    text = numbers(tmp_path, 141_000.0, predicted=PREDICTED)
    assert "149K" in text
    assert "94% of it was reached" in text
    assert "assumed rates" in text


def test_a_speed_above_the_ceiling_is_called_impossible(tmp_path: Path) -> None:
    text = numbers(tmp_path, 244_000.0, predicted=PREDICTED)
    assert "the measured figure is impossible: nothing exceeds 243K" in text
    assert "reached" not in text


def test_a_run_that_has_not_ended_shows_the_prediction_alone(tmp_path: Path) -> None:
    text = numbers(tmp_path, None, predicted=PREDICTED)
    assert "149K" in text
    assert "reached" not in text


def test_nothing_is_predicted_of_an_unknown_device(tmp_path: Path) -> None:
    assert "Predicted" not in numbers(tmp_path, 9_870.0)


def test_a_comparison_has_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def known(record: dict[str, Any]) -> None:
        record["throughput"] |= {"tokens_per_s": 141_000.0}
        record["predicted"] = PREDICTED

    runs = [
        str(finished_run(tmp_path / "a", row_losses(), edit=known)),
        str(finished_run(tmp_path / "b", row_losses(above_nats=0.1, seed=1))),
    ]
    assert run(["compare", *runs]) == 0
    assert "141K (94% of predicted)" in capsys.readouterr().out
    assert run(["compare", "--json", *runs]) == 0
    told = json.loads(capsys.readouterr().out)["runs"]
    assert [each["predicted_tokens_per_s"] for each in told] == [149_401.0, None]
