"""F22, F30, F39, F40, F41: what `apr compare` must not say.

Numbers of two sets are not ranked, what was not measured is not ranked, a difference below two
standard errors is no difference, and a comparison that changes several things says so.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.compared_runs import (
    NUM_ROWS,
    finished_run,
    in_bits,
    rewrite,
    row_losses,
    with_set,
)
from tests.run_data import RunData
from tests.unit.report.synthetic_run import step_lines, write_run

from apr.errors import Refusal
from apr.jobs.pretrain import pretrain
from apr.report.comparison import Comparison, compare_runs
from apr.report.comparison_words import NOT_DISTINGUISHABLE, headline, verdict_words
from apr.train.held_out_file import ROWS_FILE

Change = Callable[[dict[str, Any]], Any]


def pair(folder: Path, *, above_nats: float = 0.0, **config: Any) -> list[Path]:
    """Two runs on one set; the second loses `above_nats` more per token."""
    return [
        finished_run(folder / "one", row_losses(seed=1)),
        finished_run(folder / "other", row_losses(seed=2, above_nats=above_nats), config=config),
    ]


def words(found: Comparison) -> str:
    """All that is said of a comparison."""
    verdicts = [
        verdict_words(standing.difference) for standing in found.standings if standing.difference
    ]
    return " ".join([headline(found), *verdicts, *found.cautions])


def refused(paths: list[Path]) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        compare_runs(paths)
    return refusal.value


def test_numbers_of_two_sets_are_not_ranked(tmp_path: Path) -> None:
    paths = pair(tmp_path, above_nats=0.5)
    assert compare_runs(paths).lowest.run.path == paths[0]
    rewrite(paths[1], lambda record: record["val"].update(set_sha256="6f" * 32))
    # Its rows are of the first set still, which is seen before the two are compared.
    assert refused(paths).id == "run.rows-damaged"
    rewrite(paths[1], lambda record: record["val"].update(rows=None))
    refusal = refused(paths)
    assert (refusal.id, refusal.exit_code) == ("compare.sets-differ", 5)
    assert "5e5e5e5e" in refusal.found
    assert "6f6f6f6f" in refusal.found


@pytest.mark.parametrize("on_both", [False, True])
def test_a_set_without_a_hash_is_no_set(on_both: bool, tmp_path: Path) -> None:
    paths = pair(tmp_path)
    for path in paths if on_both else paths[1:]:
        rewrite(path, lambda record: record["val"].update(set_sha256=None, rows=None))
    assert refused(paths).id == "compare.sets-differ"


def test_two_real_runs_of_two_row_lengths_are_refused(run_data: RunData, tmp_path: Path) -> None:
    """The same shards in rows of another length: every token has another context."""
    options = {"num_steps": 1, "eval_every": 1, "batch_size": 2}
    for name, length in ("a", 32), ("b", 64), ("c", 32):
        pretrain(
            run_data.config(tmp_path / name, seq_length=length, seed=len(name), **options)
            if name != "c"
            else run_data.config(tmp_path / name, seq_length=32, seed=8, **options)
        )
    assert refused([tmp_path / "a", tmp_path / "b"]).id == "compare.sets-differ"
    found = compare_runs([tmp_path / "a", tmp_path / "c"])
    difference = found.standings[1].difference
    assert difference is not None
    assert difference.is_paired
    assert difference.standard_error_nats is not None
    recorded = json.loads((found.lowest.run.path / "run.json").read_text())["val"]
    assert recorded["best_standard_error_nats"] == found.lowest.run.standard_error_nats


def test_a_difference_below_two_standard_errors_is_none(tmp_path: Path) -> None:
    """The same runs at one and at three standard errors apart."""
    base, other = row_losses(seed=1), row_losses(seed=2)
    error_nats = other.minus(base).standard_error_nats
    assert error_nats is not None
    apart = other.minus(base).mean_nats
    found: dict[float, Comparison] = {}
    for errors in (0.0, 1.0, 1.9, 2.1, 3.0):
        folder = tmp_path / str(errors)
        rows = row_losses(seed=2, above_nats=errors * error_nats - apart)
        paths = [finished_run(folder / "one", base), finished_run(folder / "other", rows)]
        found[errors] = compare_runs(paths)
    for errors, comparison in found.items():
        difference = comparison.standings[1].difference
        assert difference is not None
        assert difference.is_distinguishable is (errors > 2)
        assert difference.standard_errors == pytest.approx(errors, abs=0.01)
        assert (NOT_DISTINGUISHABLE in words(comparison)) is (errors < 2)
        assert ("lowest held-out loss" in words(comparison)) is (errors > 2)
        assert "better" not in words(comparison)


def test_rows_show_what_the_means_alone_do_not(tmp_path: Path) -> None:
    paths = pair(tmp_path, above_nats=0.01)
    by_rows = compare_runs(paths).standings[1].difference
    (paths[1] / ROWS_FILE).unlink()
    found = compare_runs(paths)
    by_means = found.standings[1].difference
    assert by_rows is not None
    assert by_means is not None
    assert (by_rows.is_paired, by_means.is_paired) == (True, False)
    assert by_rows.is_distinguishable
    assert not by_means.is_distinguishable
    assert by_rows.nats == by_means.nats
    assert "by their means alone" in words(found)
    assert f"{ROWS_FILE} is not there" in words(found)


def test_without_a_standard_error_nothing_is_distinguishable(tmp_path: Path) -> None:
    """As of a run of an earlier version, however far apart the two are."""

    def forget(record: dict[str, Any]) -> None:
        record["val"].update(rows=None, best_standard_error_nats=None)

    paths = pair(tmp_path, above_nats=1.0)
    assert compare_runs(paths).standings[1].difference.is_distinguishable  # pyright: ignore
    rewrite(paths[0], forget)
    found = compare_runs(paths)
    assert "no standard error is on record" in words(found)
    assert NOT_DISTINGUISHABLE in headline(found)


def test_rows_that_all_differ_alike_are_no_evidence(tmp_path: Path) -> None:
    """A spread of zero would make any difference infinitely many standard errors."""
    rows = row_losses(seed=1)
    rows.nats[:] = 3.0 * rows.num_tokens
    same = row_losses(seed=1)
    same.nats[:] = 3.25 * same.num_tokens
    paths = [finished_run(tmp_path / "a", rows), finished_run(tmp_path / "b", same)]
    difference = compare_runs(paths).standings[1].difference
    assert difference is not None
    assert not difference.is_distinguishable
    assert "no spread" in (difference.reason or "")


@pytest.mark.parametrize("outcome", ["running", "aborted", "interrupted", "artifact_lost", "?"])
def test_what_did_not_end_well_is_listed_and_not_ranked(outcome: str, tmp_path: Path) -> None:
    """Though its record has the lowest loss of all."""
    paths = pair(tmp_path)
    unfinished = finished_run(tmp_path / "unfinished", row_losses(seed=3, above_nats=-1.0))
    assert compare_runs([*paths, unfinished]).lowest.run.path == unfinished
    rewrite(unfinished, lambda record: record.update(outcome=outcome))
    found = compare_runs([unfinished, *paths])
    assert [standing.rank for standing in found.standings] == [1, 2, None]
    assert found.standings[-1].run.path == unfinished
    assert found.standings[-1].run.loss_nats is None
    assert found.standings[-1].run.reason
    assert refused([paths[0], unfinished]).id == "compare.not-measured"


def test_a_loss_that_was_not_measured_is_not_ranked(tmp_path: Path) -> None:
    paths = [*pair(tmp_path), finished_run(tmp_path / "c", row_losses(seed=3))]
    reason = {"best_loss_nats": None, "best_loss_nats_reason": "the disk was full"}
    rewrite(paths[0], lambda record: record["val"].update(reason))
    last = compare_runs(paths).standings[-1]
    assert (last.run.path, last.rank, last.run.reason) == (paths[0], None, "the disk was full")


def test_a_target_that_was_not_met_is_not_told_as_met(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    rewrite(paths[0], lambda record: record.update(outcome="target_met"))
    rewrite(paths[0], lambda record: record["config"].update(target_val_loss=2.0))
    ended = {one.run.path: one.run.outcome.headline for one in compare_runs(paths).standings}
    assert ended[paths[0]] == "Target met, contradicted"
    rewrite(paths[0], lambda record: record["config"].update(target_val_loss=4.0))
    ended = {one.run.path: one.run.outcome.headline for one in compare_runs(paths).standings}
    assert ended[paths[0]] == "Target met"


@pytest.mark.parametrize(
    ("change", "id"),
    [
        (lambda val: val.update(best_loss_nats=val["best_loss_nats"] - 0.01), "record"),
        (lambda val: val.update(bits_per_byte=val["bits_per_byte"] * 1.001), "record"),
        (lambda val: val.update(best_standard_error_nats=1e-9), "record"),
        (lambda val: val.update(best_standard_error_nats=-0.1), "record"),
        (lambda val: val.update(best_loss_nats="low"), "record"),
        (lambda val: val.update(num_tokens=val["num_tokens"] - 1), "record"),
        (lambda val: val.update(rows=3), "record"),
        (lambda val: val["rows"].update(sha256="00" * 32), "rows"),
        (
            lambda val: val.update(
                best_loss_nats=val["best_loss_nats"] - 0.01,
                bits_per_byte=in_bits(val["best_loss_nats"] - 0.01),
            ),
            "rows",
        ),
    ],
)  # fmt: skip
def test_a_record_that_contradicts_itself_is_refused(
    change: Change, id: str, tmp_path: Path
) -> None:
    paths = pair(tmp_path)
    assert compare_runs(paths)
    rewrite(paths[1], lambda record: change(record["val"]))
    refusal = refused(paths)
    assert (refusal.id, refusal.exit_code) == (f"run.{id}-damaged", 4)
    assert str(paths[1]) in refusal.where


def test_rows_of_another_run_are_seen(tmp_path: Path) -> None:
    paths = pair(tmp_path, above_nats=0.1)
    (paths[1] / ROWS_FILE).write_bytes((paths[0] / ROWS_FILE).read_bytes())
    assert refused(paths).id == "run.rows-damaged"


def test_the_same_run_twice_is_no_comparison(tmp_path: Path) -> None:
    one, other = pair(tmp_path)
    assert refused([one, other, one]).id == "compare.same-run"
    assert refused([one, one / ".." / "one"]).id == "compare.same-run"
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "run.json").write_bytes((one / "run.json").read_bytes())
    refusal = refused([one, copy])
    assert (refusal.id, refusal.exit_code) == ("compare.same-run", 2)


def test_fewer_than_two_runs_are_no_comparison(tmp_path: Path) -> None:
    one, _ = pair(tmp_path)
    for paths in [], [one]:
        refusal = refused(paths)
        assert (refusal.id, refusal.exit_code) == ("compare.too-few", 2)
    refusal = refused([one, tmp_path / "nowhere"])
    assert (refusal.id, refusal.exit_code) == ("run.not-found", 3)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, "what they differ in is chance"),
        ({"seed": 7}, "differ in the seed alone"),
        ({"learning_rate": 0.1}, None),
        ({"learning_rate": 0.1, "seed": 7}, "2 things at once (learning_rate, seed)"),
        ({"keep": 9, "sample_prompts": [], "dataset": "elsewhere/train"}, "is chance"),
        ({"learning_rate": 0.1, "dataset": "elsewhere/train"}, None),
        ({"dataset": [["a", 0.5], ["b", 0.5]], "seed": 7}, "2 things at once (dataset, seed)"),
    ],
)
def test_f30_a_comparison_says_whether_it_changes_one_thing(
    config: dict[str, Any], expected: str | None, tmp_path: Path
) -> None:
    found = compare_runs(pair(tmp_path, above_nats=0.2, **config))
    assert {each.field for each in found.differences} == set(config)
    # One last word is said of every comparison: that a standard error knows no seeds.
    assert "another seed" in found.cautions[-1]
    assert len(found.cautions) == (1 if expected is None else 2)
    assert expected is None or expected in found.cautions[0]


def test_f30_other_data_is_told_by_its_hash(tmp_path: Path) -> None:
    paths = pair(tmp_path)
    rewrite(paths[1], lambda record: record["inputs"]["train"][0].update(sha256="77" * 32))
    rewrite(paths[1], lambda record: record["environment"].update(torch="2.11.0"))
    found = compare_runs(paths)
    listed = {each.field: (each.kind, each.is_factor) for each in found.differences}
    assert listed == {
        "inputs.train": ("input", True),
        "environment.torch": ("environment", False),
    }


def test_each_run_is_told_apart_from_the_lowest_by_what_they_differ_in(tmp_path: Path) -> None:
    """Three runs that each change one thing of the first change one thing, not two."""
    base = finished_run(tmp_path / "base", row_losses(seed=1))
    others = [
        finished_run(tmp_path / name, row_losses(seed=n, above_nats=0.3), config=config)
        for n, (name, config) in enumerate(
            {"rate": {"learning_rate": 0.1}, "decay": {"weight_decay": 0.2}}.items(), start=2
        )
    ]
    found = compare_runs([*others, base])
    assert found.lowest.run.path == base
    assert not any("at once" in caution for caution in found.cautions)


def test_periodic_readings_of_two_sets_are_not_drawn_together(tmp_path: Path) -> None:
    from apr.report.comparison_page import write_comparison

    paths = pair(tmp_path)
    page = tmp_path / "page.html"
    write_comparison(compare_runs(paths), page)
    assert 'id="held-out"' in page.read_text()
    lines = [with_set(line, "cd" * 32) for line in step_lines(20, eval_every=5)]
    write_run(paths[1], json.loads((paths[1] / "run.json").read_text()), lines)
    write_comparison(compare_runs(paths), page)
    assert 'id="held-out"' not in page.read_text()
    assert "the runs read no common set on the way" in page.read_text()


def test_the_rows_of_these_runs_are_as_ragged_as_real_ones() -> None:
    assert len(set(row_losses().num_tokens.tolist())) == 2
    assert len(row_losses().nats) == NUM_ROWS
    assert not np.array_equal(row_losses(seed=1).nats, row_losses(seed=2).nats)
