"""`apr compare RUNS`, as a person or a script calls it, and its page."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.compared_runs import finished_run, rewrite, row_losses
from tests.unit.report.page_reader import Page
from tests.unit.report.synthetic_run import HOSTILE
from tests.unit.report.test_isolation import ALLOWED_TAGS

from apr.cli.main import run

Captured = pytest.CaptureFixture[str]
ESCAPE = "\x1b[2J"


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Two runs that differ in one thing, and one that has not ended."""
    paths = [
        finished_run(tmp_path / "one", row_losses(seed=1)),
        finished_run(
            tmp_path / "two", row_losses(seed=2, above_nats=0.1), config={"learning_rate": 0.01}
        ),
        finished_run(tmp_path / "three", row_losses(seed=3)),
    ]
    rewrite(paths[2], lambda record: record.update(outcome="running"))
    return [str(path) for path in paths]


def test_the_terminal_tells_losses_costs_and_differences(runs: list[str], capsys: Captured) -> None:
    assert run(["compare", *runs]) == 0
    captured = capsys.readouterr()
    text = captured.out
    lines = text.splitlines()
    assert lines[0].startswith(f"{runs[0]} has the lowest held-out loss, 0.")
    assert lines[0].endswith(f"standard errors) below {runs[1]}.")
    rows = {line.split()[1]: line for line in lines if line.startswith("  ") and "/" in line}
    assert rows[runs[0]].split()[2] == f"{row_losses(seed=1).mean_nats:.4f}"
    assert "distinguishable, row by row" in rows[runs[1]]
    assert "not ranked" in rows[runs[2]]
    assert "the run has not ended" in rows[runs[2]]
    differs = next(line for line in lines if line.startswith("  learning_rate"))
    assert differs.split()[1:] == ["0.0003", "0.01", "0.0003"]
    assert "4.1M" in text
    assert "2.41M" in text
    assert "note: " in text


def test_json_is_one_object_with_a_reason_beside_what_is_not_known(
    runs: list[str], capsys: Captured
) -> None:
    assert run(["compare", *runs, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    first, second, third = answer["runs"]
    assert [each["path"] for each in answer["runs"]] == runs
    assert [each["rank"] for each in answer["runs"]] == [1, 2, None]
    assert first["difference_nats"] is None
    assert first["difference_reason"] == "the lowest loss"
    assert second["is_distinguishable"] is second["is_paired"] is True
    assert second["difference_standard_errors"] == pytest.approx(
        second["difference_nats"] / second["difference_standard_error_nats"]
    )
    assert third["best_loss_nats"] is None
    assert third["rank_reason"] == "the run has not ended"
    assert answer["differences"] == [
        {
            "field": "learning_rate",
            "kind": "config",
            "is_factor": True,
            "values": [0.0003, 0.01, 0.0003],
        }
    ]
    assert answer["page"] is None
    assert type(first["tokens_seen"]) is type(answer["num_tokens"]) is int


def test_a_refusal_is_one_object_too(runs: list[str], capsys: Captured) -> None:
    rewrite(Path(runs[1]), lambda record: record["val"].update(set_sha256="6f" * 32, rows=None))
    assert run(["compare", *runs[:2], "--json"]) == 5
    answer = json.loads(capsys.readouterr().out)
    assert answer["refused"]["id"] == "compare.sets-differ"
    assert answer["exit_code"] == 5
    assert run(["compare", runs[0], "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["refused"]["id"] == "compare.too-few"
    assert run(["compare"]) == 2


def test_the_page_draws_every_run_over_the_others(
    runs: list[str], tmp_path: Path, capsys: Captured
) -> None:
    target = tmp_path / "compared.html"
    assert run(["compare", *runs, "-o", str(target)]) == 0
    assert f"page: {target}" in capsys.readouterr().out
    page = Page(target)
    assert set(page.tags) <= ALLOWED_TAGS
    for chart in ("held-out", "training"):
        classes = [path.get("class") for path in page.charts[chart].iter("path")]
        assert {f"curve run-{number}" for number in (1, 2, 3)} <= set(classes)
    assert list(page.texts)[-5:] == ["result", "losses", "curves", "costs", "differences"]
    assert "learning_rate" in page.texts["differences"]
    assert "the run has not ended" in page.texts["losses"]
    assert "distinguishable, row by row" in page.texts["losses"]
    # The same runs give the same bytes.
    before = target.read_bytes()
    assert run(["compare", *runs, "-o", str(target), "--overwrite"]) == 0
    assert target.read_bytes() == before


def test_a_page_is_not_written_over_without_consent_nor_into_a_run(
    runs: list[str], tmp_path: Path, capsys: Captured
) -> None:
    target = tmp_path / "compared.html"
    target.write_text("mine")
    record = Path(runs[0], "run.json")
    before = record.read_bytes()
    for output, code, id in (
        (target, 5, "files.exists"),
        (record, 2, "files.output-overlaps-input"),
        (Path(runs[1], "new.html"), 2, "files.output-overlaps-input"),
        (tmp_path, 2, "files.output-overlaps-input"),
    ):
        assert run(["compare", *runs, "-o", str(output), "--json"]) == code
        assert json.loads(capsys.readouterr().out)["refused"]["id"] == id
    assert target.read_text() == "mine"
    assert run(["compare", *runs, "-o", str(record), "--force", "--json"]) == 2
    assert record.read_bytes() == before
    assert run(["compare", *runs, "-o", str(target), "--force"]) == 0
    assert target.read_text() != "mine"
    assert run(["compare", *runs, "--overwrite"]) == 2
    assert "has no effect without --output" in capsys.readouterr().err


def test_nothing_in_a_record_drives_a_terminal_or_a_page(tmp_path: Path, capsys: Captured) -> None:
    hostile = f"{HOSTILE}{ESCAPE}\n  1  fake  0.0001"

    def plant(record: dict[str, Any]) -> None:
        record["config"] |= {hostile: hostile, "arch": hostile}
        record["inputs"]["train"][0]["sha256"] = hostile
        record["environment"][hostile] = hostile
        record["outcome_detail"] = hostile

    named = tmp_path / f"run{ESCAPE}\n<img src=x>"
    paths = [finished_run(tmp_path / "one", row_losses(seed=1)), finished_run(named)]
    rewrite(paths[1], plant)
    target = tmp_path / "page.html"
    assert run(["compare", *map(str, paths), "-o", str(target)]) == 0
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert not any(line.startswith("  1  fake") for line in captured.out.splitlines())
    source = target.read_text()
    assert "\x1b" not in source
    assert "<img" not in source
    assert "<script" not in source
    assert set(Page(target).tags) <= ALLOWED_TAGS


def test_more_runs_than_colours_are_all_listed(tmp_path: Path, capsys: Captured) -> None:
    paths = [
        str(finished_run(tmp_path / f"run{n}", row_losses(seed=n), config={"seed": n}))
        for n in range(10)
    ]
    target = tmp_path / "page.html"
    assert run(["compare", *paths, "-o", str(target)]) == 0
    page = Page(target)
    assert all(path in page.texts["losses"] for path in paths)
    assert "The first 8 of 10 runs are drawn." in page.texts["curves"]
    assert "not distinguishable" in capsys.readouterr().out


def test_a_run_without_steps_has_no_curve_and_still_a_loss(tmp_path: Path) -> None:
    paths = [finished_run(tmp_path / name, row_losses(seed=n)) for n, name in enumerate("ab")]
    for path in paths:
        (path / "steps.jsonl").unlink()
    target = tmp_path / "page.html"
    assert run(["compare", *map(str, paths), "-o", str(target)]) == 0
    assert "no run has a reading" in Page(target).text


@pytest.mark.parametrize(
    ("values", "id"),
    [
        ({"best_loss_nats": 1.0}, "run.record-damaged"),
        ({"best_standard_error_nats": -1.0}, "run.record-damaged"),
        ({"num_tokens": 7}, "run.record-damaged"),
    ],
)
def test_a_page_is_not_drawn_from_what_a_comparison_refuses(
    values: dict[str, Any], id: str, tmp_path: Path, capsys: Captured
) -> None:
    one, other = (finished_run(tmp_path / name, row_losses(seed=1)) for name in "ab")
    # The twin: as the run wrote it.
    assert run(["report", str(one)]) == 0
    page = (one / "report.html").read_bytes()
    rewrite(one, lambda record: record["val"].update(values))
    refused: list[dict[str, Any]] = []
    capsys.readouterr()
    for command in (["report", str(one)], ["compare", str(one), str(other)]):
        assert run([*command, "--json"]) == 4
        refused.append(json.loads(capsys.readouterr().out)["refused"])
    assert refused[0] == refused[1]
    assert refused[0]["id"] == id
    assert (one / "report.html").read_bytes() == page
