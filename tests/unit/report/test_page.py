"""The page says what the record says, in order, and nothing it does not."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from tests.unit.report.page_reader import Page
from tests.unit.report.synthetic_run import HOSTILE, SHA256, run_record, step_lines, write_run

from apr.report.page import write_report

_MINIMAL = {"schema": "apr-run-v1"}


def _page(run_dir: Path, record: Any = None, lines: Any = None) -> Page:
    return Page(write_report(write_run(run_dir, record, lines)))


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of a complete run."""
    return _page(tmp_path_factory.mktemp("report") / "demo")


def test_sections_come_in_the_order_a_reader_asks(complete: Page) -> None:
    assert [name for name in complete.texts if name] == [
        "outcome", "numbers", "yardsticks", "curves", "gates", "samples", "configuration",
        "architecture", "inputs", "environment", "resumes", "remainder", "not-measured",
    ]  # fmt: skip


def test_key_numbers_are_the_recorded_ones(complete: Page) -> None:
    text = complete.texts["numbers"]
    expected = ("2.41M", "2,410,176", "3.412", "step 900", "1.54", "9.87K", "7m42s", "1.28 epochs")
    assert all(word in text for word in expected), text


def test_yardsticks_stand_side_by_side_and_are_compared(complete: Page) -> None:
    bars = [bar.get("width") for bar in complete.charts["yardstick-bars"].iter("rect")]
    assert bars == ["100%", "69.31%", "55.49%"]
    assert "45% fewer bits than a unigram model and 20% fewer bits than gzip -9" in complete.text


def test_a_model_worse_than_gzip_is_called_so(tmp_path: Path) -> None:
    baselines = {"unigram_bits_per_byte": 2.0, "gzip_bits_per_byte": 1.0}
    page = _page(tmp_path / "run", run_record(baselines=baselines), [])
    assert "23% fewer bits than a unigram model and 53.7% more bits than gzip -9" in page.text


def test_a_yardstick_that_was_not_measured_is_no_bar(tmp_path: Path) -> None:
    baselines = {"unigram_bits_per_byte": 2.0, "gzip_bits_per_byte": None,
                 "gzip_bits_per_byte_reason": "no text at hand"}  # fmt: skip
    page = _page(tmp_path / "run", run_record(baselines=baselines), [])
    assert len(list(page.charts["yardstick-bars"].iter("rect"))) == 2
    assert "not measured: no text at hand" in page.texts["yardsticks"]
    assert "yardsticks" not in _page(tmp_path / "none", run_record(baselines=None), []).texts


def test_every_gate_is_listed_whole(complete: Page) -> None:
    gates = run_record()["gates"]
    assert len(gates) == 9
    rows = [
        ["".join(cell.itertext()) for cell in row.iter("td")]
        for table in complete.body.iter("table")
        if table.get("class") == "gates"
        for row in table.iter("tr")
        if list(row.iter("td"))
    ]
    assert len(rows) == len(gates)
    for gate, (verdict, name, found, expected) in zip(gates, rows, strict=True):
        assert gate["verdict"] in verdict
        assert {"PASS": "\u2713", "FAIL": "\u2715", "UNKNOWN": "?"}[gate["verdict"]] in verdict
        assert gate["id"] in name
        assert (gate["upstream_id"] or "") in name
        assert (found, expected) == (gate["found"], gate["expected"])
        assert ("waived" in verdict) == (gate["waiver"] is not None)
        if gate["waiver"]:
            assert gate["waiver"]["reason"] in name
    assert "9 gates: 7 passed, 1 failed and waived, 1 unknown and waived." in complete.text


def test_an_unwaived_failure_and_a_foreign_verdict_do_not_look_passed(tmp_path: Path) -> None:
    gates = [{"id": "a", "verdict": "FAIL"}, {"id": "b", "verdict": "SKIPPED"}, {"id": "c"}]
    page = _page(tmp_path / "run", _MINIMAL | {"gates": gates}, [])
    assert "3 gates: 1 failed, 2 unknown, which blocks like a failure." in page.text
    assert not [value for _, _, value in page.attributes if value == "verdict good"]


def test_prompt_and_continuation_are_told_apart_without_colour(complete: Page) -> None:
    samples = [pre for pre in complete.body.iter("pre") if pre.get("class") == "sample"]
    assert len(samples) == 2
    prompt, text = list(samples[0])
    assert (prompt.tag, prompt.text) == ("b", "def ")
    assert text.text == run_record()["samples"][0]["text"]
    assert "underline" in complete.style.split(".sample b")[1].split("}")[0]
    assert "stop reason: end_of_text" in complete.texts["samples"]


def test_configuration_inputs_and_environment_are_complete(complete: Page) -> None:
    record = run_record()
    for section, key in (("configuration", "config"), ("architecture", "architecture"),
                         ("environment", "environment")):  # fmt: skip
        assert all(name in complete.texts[section] for name in record[key])
    assert complete.texts["inputs"].count(SHA256) == 5
    assert "3,204,511 tokens" in complete.texts["inputs"]
    assert "waive.preflight.token-budget" in complete.texts["configuration"]


def test_whatever_else_is_on_record_is_shown(tmp_path: Path) -> None:
    page = _page(tmp_path / "run", run_record(surprise={"inner": [{"deep": "treasure"}]}), [])
    assert "surprise.inner[0].deep" in page.texts["remainder"]
    assert "treasure" in page.texts["remainder"]


def test_every_reason_is_listed(tmp_path: Path) -> None:
    record = run_record(model=None, model_reason="the disk was full", tokens_seen_reason=None)
    page = _page(tmp_path / "run", record, [])
    text = page.texts["not-measured"]
    assert "throughput.mfu" in text
    assert "the peak of this device is not known" in text
    assert "model" in text
    assert "the disk was full" in text
    assert "tokens_seen" not in text
    # Why a sample stopped excuses no missing number.
    assert record["samples"][0]["stop_reason"] == "end_of_text"
    assert "end_of_text" not in text


def test_charts_carry_their_meaning_in_words(complete: Page) -> None:
    for id, picture in complete.charts.items():
        named = {child.get("id") for child in picture if child.tag in {"title", "desc"}}
        assert picture.get("role") == "img"
        assert set((picture.get("aria-labelledby") or "").split()) == named, id
        assert all((child.text or "") for child in picture if child.tag in {"title", "desc"})
    assert set(complete.charts) == {
        "yardstick-bars", "loss", "learning-rate", "gradient-norm", "throughput",
    }  # fmt: skip


def test_the_loss_chart_has_step_0_the_guess_and_both_curves(complete: Page) -> None:
    picture = complete.charts["loss"]
    classes = [mark.get("class") for mark in picture.iter()]
    assert classes.count("dot val") == 11
    assert {"reference", "curve train raw", "curve train", "curve val", "dot best"} <= set(classes)
    titles = [title.text for title in picture.iter("title")]
    assert "step 0: 8.331 nats per token" in titles
    labels = [mark.text for mark in picture.iter("text") if "label" in (mark.get("class") or "")]
    assert labels == ["ln V 8.32", "val 3.40", "train 3.29"]


def test_readings_of_another_set_are_another_curve(complete: Page, tmp_path: Path) -> None:
    assert "Hollow dots: the whole held-out set, 131,072 tokens." in complete.text
    classes = [mark.get("class") for mark in complete.charts["loss"].iter("circle")]
    assert classes.count("dot other") == 3
    # The harmless twin: lines that read the whole set are the whole set.
    record = run_record()
    record["val"] |= {"num_tokens": 100_000, "bits_per_byte": None}
    same = _page(tmp_path / "run", record)
    assert "Hollow dots" not in same.text
    # Same size, other text.
    record["val"] |= {"set_sha256": "a" * 64}
    lines = [line | {"set_sha256": "b" * 64} if line["kind"] == "val" else line
             for line in step_lines(200)]  # fmt: skip
    assert "Hollow dots" in _page(tmp_path / "other", record, lines).text


def test_resumes_are_drawn_and_listed(tmp_path: Path) -> None:
    resumes = [{"step": 500, "at": "2026-11-21T09:00:00Z", "environment_changed": {"torch": "2"},
                "passed_over": []}]  # fmt: skip
    page = _page(tmp_path / "run", run_record(resumes=resumes))
    text = 'after step 500, 2026-11-21 09:00 UTC, environment_changed {"torch": "2"}'
    assert text in page.texts["resumes"]
    assert "pauses before resuming included" in page.texts["numbers"]
    for id in ("loss", "throughput"):
        marks = [m for m in page.charts[id].iter("line") if m.get("class") == "resume"]
        assert [mark.get("x1") for mark in marks] == ["50%"]


_OUTCOMES = {
    "target_met": ("unconfirmed", "open"),
    "budget_exhausted": ("Budget exhausted", "open"),
    "early_stop": ("Stopped early", "open"),
    "aborted": ("Aborted", "bad"),
    "interrupted": ("Interrupted", "open"),
    "artifact_lost": ("Artifact lost", "bad"),
    "running": ("Never ended", "open"),
    "triumph": ("Outcome unknown", "open"),
    None: ("Outcome unknown", "open"),
}


@pytest.mark.parametrize(("word", "expected"), _OUTCOMES.items())
def test_no_ending_reads_like_a_success_it_is_not(
    word: str | None, expected: tuple[str, str], tmp_path: Path
) -> None:
    page = _page(tmp_path / "run", _MINIMAL | {"outcome": word}, [])
    headline, tone = expected
    assert headline in page.texts["outcome"]
    assert ("section", "class", f"outcome {tone}") in page.attributes


def test_target_met_is_believed_only_with_its_numbers(tmp_path: Path) -> None:
    val = run_record()["val"] | {"bits_per_byte": None}
    met = run_record(outcome="target_met", val=val | {"best_loss_nats": 2.95})
    page = _page(tmp_path / "met", met, [])
    assert "came down to 2.950 nats per token; the target was 3.000." in page.text
    assert ("section", "class", "outcome good") in page.attributes
    lied = run_record(outcome="target_met", val=val | {"best_loss_nats": 3.05})
    page = _page(tmp_path / "lied", lied, [])
    assert "Target met, contradicted" in page.text
    assert ("section", "class", "outcome bad") in page.attributes


def test_the_budget_is_compared_with_the_steps_on_record(complete: Page, tmp_path: Path) -> None:
    assert "spent its whole budget of 1,000 steps" in complete.texts["outcome"]
    assert "above the target of 3.000" in complete.texts["outcome"]
    assert "contradict" not in complete.texts["outcome"]
    page = _page(tmp_path / "short", None, step_lines(990))
    assert "steps.jsonl ends at step 990, not at 1,000" in page.texts["outcome"]


def test_a_run_without_a_target_is_not_held_against_one(tmp_path: Path) -> None:
    config = run_record()["config"] | {"stop_at_target": False}
    page = _page(tmp_path / "run", run_record(config=config), step_lines(1000))
    assert "no target was set" in page.texts["outcome"]


def test_the_recorded_cause_is_told(tmp_path: Path) -> None:
    record = run_record(outcome="aborted", outcome_detail="train.non-finite: step 513: loss nan")
    page = _page(tmp_path / "run", record, step_lines(512))
    assert "The run was stopped after step 512" in page.text
    assert "Recorded cause: train.non-finite: step 513: loss nan" in page.text


def test_a_run_with_nothing_measured_has_a_page_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(_MINIMAL))
    page = Page(write_report(tmp_path / "run"))
    assert page.texts["numbers"].count("not measured") == 6
    assert page.texts["curves"].count("not measured") == 4
    assert page.charts == {}
    assert "no steps.jsonl" in page.text


def test_a_killed_runs_torn_last_line_is_left_out_and_said(complete: Page, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", run_record(outcome="running", tokens_seen=0), step_lines(50))
    with (run / "steps.jsonl").open("ab") as target:
        target.write(b'{"kind":"step","step":51,"loss_na\xc3')
    page = Page(write_report(run))
    assert "The last line of steps.jsonl is torn" in page.texts["outcome"]
    assert "Its steps end after step 50." in page.texts["outcome"]
    assert "205K" in page.texts["numbers"]
    assert "added up over the steps on record" in page.texts["numbers"]
    assert "torn" not in complete.text


@pytest.mark.parametrize(
    ("finished_at", "words"),
    [
        ("2026-11-20T18:05:00Z", "2h05m"),
        ("2026-11-20T15:59:00Z", "the clock was changed"),
        ("2026-11-20T16:01:00", "up to the last step on record"),
        ("yesterday", "up to the last step on record"),
        (None, "up to the last step on record"),
    ],
)
def test_time_is_told_only_where_the_clock_allows(
    finished_at: str | None, words: str, tmp_path: Path
) -> None:
    page = _page(tmp_path / "run", run_record(finished_at=finished_at), step_lines(20))
    assert words in page.texts["numbers"]


def test_a_line_of_an_unknown_kind_is_counted_not_dropped_in_silence(tmp_path: Path) -> None:
    lines = [*step_lines(5, eval_every=9), {"kind": "eval", "score": 1}]
    assert "1 lines of steps.jsonl are of a kind" in _page(tmp_path / "run", None, lines).text


def test_numbers_that_are_none_leave_a_gap_and_no_nan(tmp_path: Path) -> None:
    lines = list(step_lines(300))
    for step, value in ((100, float("nan")), (101, float("inf")), (102, 1e300), (103, None)):
        (line,) = [line for line in lines if line["step"] == step and line["kind"] == "step"]
        line |= {"loss_nats": value, "grad_norm": value, "lr_applied": value, "tokens": value}
    page = _page(tmp_path / "run", None, lines)
    assert not re.search(r"\b(nan|inf|infinity)\b", page.text, re.IGNORECASE)
    assert not [value for _, name, value in page.attributes if name == "d" and "n" in value]
    assert page.texts["curves"].count("4 steps have no value to draw") == 4
    (raw,) = [p for p in page.charts["loss"].iter("path") if "raw" in (p.get("class") or "")]
    assert (raw.get("d") or "").count("M") == 2


def test_a_spike_among_many_steps_is_drawn_and_named(tmp_path: Path) -> None:
    lines = list(step_lines(5000))
    (line,) = [line for line in lines if line["step"] == 3333 and line["kind"] == "step"]
    line["loss_nats"] = 512.0
    page = _page(tmp_path / "run", None, lines)
    assert "it reaches 512 at step 3,333" in page.text
    giants = [mark for mark in page.charts["loss"].iter("svg") if mark.get("class") == "giant"]
    assert [mark.get("x") for mark in giants] == ["66.66%"]
    ticks = [m.text for m in page.charts["loss"].iter("text") if m.get("class") == "tick y"]
    assert "9" in ticks
    assert "512" not in ticks


def test_a_long_run_makes_a_small_page_in_a_short_time(tmp_path: Path) -> None:
    line = '{"kind":"step","step":%d,"loss_nats":%s,"grad_norm":1.5,"lr_applied":3e-4,"tokens":9,"elapsed_s":%d}\n'  # noqa: E501
    run = write_run(tmp_path / "run", None, [])
    with (run / "steps.jsonl").open("w") as target:
        for step in range(1, 200_001):
            target.write(line % (step, "77" if step == 123_457 else f"{3 + step % 97 / 97}", step))
    started_s = time.monotonic()
    page = write_report(run)
    assert time.monotonic() - started_s < 20
    assert page.stat().st_size < 1_000_000
    assert "it reaches 77 at step 123,457" in page.read_text()


def test_the_same_run_gives_the_same_bytes(complete: Page, tmp_path: Path) -> None:
    again = write_report(write_run(tmp_path / "elsewhere" / "demo"))
    assert again.read_text() == complete.source


def test_the_page_names_what_it_was_drawn_from(complete: Page, tmp_path: Path) -> None:
    import hashlib

    run = write_run(tmp_path / "demo")
    for name in ("run.json", "steps.jsonl"):
        assert hashlib.sha256((run / name).read_bytes()).hexdigest() in complete.text


def test_hostile_text_arrives_as_text(complete: Page) -> None:
    for section in ("gates", "samples", "inputs"):
        assert HOSTILE in complete.texts[section]
    assert "<script" not in complete.source
    assert "<img" not in complete.source
    assert "[31m" in complete.text
    assert "\x1b" not in complete.source
    assert "\u202e" not in complete.source
    assert "\u27e8U+001B\u27e9[31m\u27e8U+202E\u27e9\u27e8U+0000\u27e9" in complete.text


def test_a_hostile_directory_name_is_escaped_in_title_and_heading(tmp_path: Path) -> None:
    page = _page(tmp_path / "<img src=x onerror=alert(1)>\x1b[2J", _MINIMAL, [])
    assert "<img src=x onerror=alert(1)>\u27e8U+001B\u27e9[2J: outcome unknown" in page.text
    assert "img" not in page.tags


def test_a_standard_error_stands_beside_the_loss(tmp_path: Path) -> None:
    record = run_record()
    record["val"]["best_standard_error_nats"] = 0.01234
    page = _page(tmp_path / "run", record, [])
    assert "per token, at step 900, standard error 0.0123" in page.texts["numbers"]
    record["val"] |= {
        "best_standard_error_nats": None,
        "best_standard_error_nats_reason": "one row",
    }
    page = _page(tmp_path / "older", record, [])
    assert "standard error" not in page.texts["numbers"]
    assert "one row" in page.texts["not-measured"]


def test_a_resumed_run_is_held_against_the_plan_in_force(tmp_path: Path) -> None:
    resumes = [{"step": 10, "config_changed": {"num_steps": [1000, 20], "patience": [5, 2]}}]
    record = run_record(resumes=resumes)
    page = _page(tmp_path / "budget", record, step_lines(20))
    assert "spent its whole budget of 20 steps" in page.texts["outcome"]
    assert "contradict" not in page.texts["outcome"]
    assert "num_steps20batch_size" in page.texts["configuration"]
    assert "as the last resume left them" in page.texts["configuration"]
    stopped = _page(tmp_path / "patience", record | {"outcome": "early_stop"}, step_lines(20))
    assert "for 2 validations in a row" in stopped.texts["outcome"]
    # The twin: a log that ends elsewhere than the plan in force.
    short = _page(tmp_path / "short", record, step_lines(19))
    assert "steps.jsonl ends at step 19, not at 20" in short.texts["outcome"]


def test_a_run_that_was_not_resumed_tells_no_resume(complete: Page) -> None:
    assert "as the last resume left them" not in complete.texts["configuration"]


def _last_steps_skipped(num_applied: int, num_skipped: int) -> list[dict[str, Any]]:
    skips = [
        {"kind": "skip", "step": num_applied + 1 + at, "id": "train.non-finite", "found": "nan"}
        for at in range(num_skipped)
    ]
    return [*step_lines(num_applied), *skips]


def test_skipped_steps_count_as_steps_of_the_budget_and_are_told(tmp_path: Path) -> None:
    config = run_record()["config"] | {"num_steps": 40}
    page = _page(tmp_path / "run", run_record(config=config), _last_steps_skipped(1, 39))
    told = page.texts["outcome"]
    assert "its whole budget of 40 steps: 1 was applied, 39 were not." in told
    assert "contradict" not in told
    # The twins: a log that ends early is no sound one, and a run that skipped nothing says nothing.
    short = _page(tmp_path / "short", run_record(config=config), _last_steps_skipped(1, 38))
    assert "steps.jsonl ends at step 39, not at 40" in short.texts["outcome"]
    whole = _page(tmp_path / "whole", run_record(config=config), step_lines(40))
    assert "its whole budget of 40 steps. " in whole.texts["outcome"]


def test_a_run_that_ended_while_skipping_ended_where_its_log_does(tmp_path: Path) -> None:
    aborted = run_record(outcome="aborted")
    page = _page(tmp_path / "run", aborted, _last_steps_skipped(20, 4))
    assert "The run was stopped after step 24" in page.texts["outcome"]


@pytest.mark.parametrize("word", ["budget_exhausted", "early_stop", "aborted", "running"])
def test_without_its_log_a_run_has_no_curve_and_the_page_says_why(
    word: str, tmp_path: Path
) -> None:
    record = run_record(outcome=word)
    record["val"] |= {"last_loss_nats": 3.431, "best_step": 900}
    run_dir = write_run(tmp_path / "run", record)
    (run_dir / "steps.jsonl").unlink()
    page = Page(write_report(run_dir))
    assert set(page.charts) == {"yardstick-bars"}
    assert "Held-out loss in numbers" not in page.text
    assert page.texts["curves"].count("not measured: steps.jsonl is not there") == 4
    assert "steps.jsonl is not there: no curve can be drawn" in page.texts["outcome"]
    assert "before the first step" not in page.texts["outcome"]
    assert "No step is on record" not in page.texts["outcome"]
    # What the record itself says stays.
    assert "3.412" in page.texts["numbers"]


def test_a_run_with_a_log_is_not_said_to_lack_one(complete: Page, tmp_path: Path) -> None:
    assert "steps.jsonl is not there" not in complete.text
    empty = _page(tmp_path / "empty", run_record(outcome="aborted"), [])
    assert "steps.jsonl is not there" not in empty.text
    assert "before the first step" in empty.texts["outcome"]
