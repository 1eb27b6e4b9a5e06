"""steps.jsonl becomes curves line by line."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from apr.errors import DamagedFile
from apr.progress import Progress
from apr.report.history import History, read_history


def _read(path: Path, lines: list[Any], **options: Any) -> History:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_history(path, **options)


def _step(step: int, elapsed_s: float | None = None, tokens: int = 100) -> dict[str, Any]:
    return {"kind": "step", "step": step, "loss_nats": 1.0, "tokens": tokens,
            "elapsed_s": elapsed_s}  # fmt: skip


def _rates(history: History) -> list[float]:
    return [bucket.mean for bucket in history.tokens_per_s.buckets]


def test_a_run_without_steps_is_an_empty_history(tmp_path: Path) -> None:
    history = read_history(tmp_path / "steps.jsonl")
    assert (history.is_present, history.num_steps, history.sha256) == (False, 0, None)
    (tmp_path / "steps.jsonl").touch()
    history = read_history(tmp_path / "steps.jsonl")
    assert (history.is_present, history.num_steps, history.is_torn) == (True, 0, False)


def test_throughput_is_tokens_over_the_time_between_two_steps(tmp_path: Path) -> None:
    lines = [_step(1, 9.0), _step(2, 10.0), _step(3, 10.5, tokens=25)]
    assert _rates(_read(tmp_path / "s", lines)) == [100.0, 50.0]


def test_no_rate_without_a_neighbour_or_with_a_clock_set_back(tmp_path: Path) -> None:
    lines = [_step(1, 1.0), _step(3, 2.0), _step(4, 1.5), _step(5, 1.5), _step(6), _step(7, 4.0)]
    history = _read(tmp_path / "s", lines)
    assert _rates(history) == []
    assert history.tokens_per_s.num_missing == 4


def test_no_rate_across_a_resume(tmp_path: Path) -> None:
    lines = [_step(step, float(step)) for step in range(1, 6)]
    assert len(_rates(_read(tmp_path / "s", lines))) == 4
    history = _read(tmp_path / "s", lines, resumed_at=[3])
    assert [bucket.lowest_step for bucket in history.tokens_per_s.buckets] == [2, 5]


def test_a_torn_last_line_is_told_apart_from_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    good = json.dumps(_step(1)) + "\n"
    for torn in ('{"kind":"st', "\x00\x00\x00", '{"kind":"step"', '"x"'):
        path.write_text(good + torn)
        history = read_history(path)
        assert (history.is_torn, history.num_steps) == (True, 1), torn
        path.write_text(good + torn + "\n")
        with pytest.raises(DamagedFile) as refused:
            read_history(path)
        assert refused.value.id == "run.steps-damaged"
        assert refused.value.where == f"{path}, line 2"


def test_a_line_that_grows_while_it_is_read_is_torn_not_damaged(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    path.write_text('{"kind":"note"}\n' * 19_999 + '{"kind":"ste')
    grown: list[Progress] = []

    def grow(report: Progress) -> None:
        grown.append(report)
        with path.open("a") as target:
            target.write('p","step":1}\n')

    history = read_history(path, progress=grow)
    assert len(grown) == 1
    assert (history.is_torn, history.num_unknown_lines) == (True, 19_999)


def test_a_whole_last_line_needs_no_line_end(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    path.write_text(json.dumps(_step(1)) + "\n" + json.dumps(_step(2)))
    history = read_history(path)
    assert (history.is_torn, history.num_steps) == (False, 2)


def test_readings_are_thinned_evenly_and_kept_as_a_curve(tmp_path: Path) -> None:
    lines = [{"kind": "val", "step": step, "loss_nats": 2.0} for step in range(2000)]
    lines[777]["loss_nats"] = 0.5
    history = _read(tmp_path / "s", lines)
    assert history.num_validations == 2000
    assert [reading.step for reading in history.validations] == list(range(0, 2000, 8))
    (series,) = history.validation_losses.values()
    assert min(bucket.lowest for bucket in series.buckets) == 0.5


def test_very_many_held_out_sets_stay_bounded(tmp_path: Path) -> None:
    lines = [{"kind": "val", "step": n, "loss_nats": 2.0, "num_tokens": n} for n in range(50)]
    assert len(_read(tmp_path / "s", lines).validation_losses) == 7


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    with path.open("w") as target:
        for step in range(1, 20_001):
            target.write(json.dumps(_step(step, float(step))) + "\n")
    tracemalloc.start()
    try:
        history = read_history(path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert history.num_steps == 20_000
    assert peak_bytes < path.stat().st_size
    assert peak_bytes < 1 << 21


def test_long_files_report_their_progress(tmp_path: Path) -> None:
    seen: list[Progress] = []
    path = tmp_path / "steps.jsonl"
    path.write_text('{"kind":"note"}\n' * 40_000)
    read_history(path, progress=seen.append)
    assert [report.done for report in seen] == [320_000, 640_000]
    assert seen[0].total == 640_000


def test_measurements_no_clock_or_counter_can_give_are_no_measurements(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    line = '{"kind":"step","step":%d,"elapsed_s":%s,"tokens":%s,"loss_nats":%s}\n'
    path.write_text(
        line % (1, "1e999", "-5", "9" * 400)
        + line % (2, "NaN", "1e300", "Infinity")
        + line % (3, "3", "7", "1.5")
        + line % (4, "-Infinity", "7", "-1e999")
        + line % (5, "5", "7", "1.5")
    )
    history = read_history(path)
    assert history.num_tokens == 21
    assert history.loss_nats.num_missing == 3
    assert _rates(history) == []
    assert history.last_elapsed_s == 5
