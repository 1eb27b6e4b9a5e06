"""F34, F36: a run is killed at a write point, or its disk says no, and nothing is lost.

A sample; `make kills` strikes everywhere. Each run that goes on is compared with the one that
nobody disturbed, by the bytes of every file that holds weights or moments.
"""

import json
import random
from collections.abc import Generator
from datetime import datetime
from itertools import pairwise
from typing import Literal

import pytest
from tests.kills.faults import Fault
from tests.kills.run import require_refused
from tests.kills.trial import MIDDLE_STEP, Lost, Trials, facts_of
from tests.run_data import RunData
from tests.warm import Warm

from apr.jobs.run_lock import hold_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def warm(ranks: Warm, ranks_data: RunData, tmp_path_factory: pytest.TempPathFactory) -> Trials:
    return Trials.begin(ranks_data, tmp_path_factory.mktemp("kills") / "run", ranks)


@pytest.fixture
def trials(warm: Trials) -> Generator[Trials]:
    yield warm
    warm.clear()


def points(trials: Trials, *, count: int, seed: int) -> list[int]:
    """Each rename that decides something, half of a deletion, and others by chance."""
    of_checkpoint = {f"checkpoints/{MIDDLE_STEP}", "run.json", "model.apr"}
    everywhere = trials.write_points()
    half_deleted = f"os.remove checkpoints/.{MIDDLE_STEP}.*.old/model.apr"
    decisive = [
        point
        for point in everywhere
        if (operation := trials.operations[point - 1]) == half_deleted
        or (operation.startswith("os.rename") and set(operation.split()) & of_checkpoint)
    ]
    others = sorted(set(everywhere) - set(decisive))
    return decisive + random.Random(seed).sample(others, count)


def test_the_write_points_are_all_of_a_checkpoint(trials: Trials) -> None:
    """The list is from the program itself, so that a new file of a checkpoint is struck too."""
    struck = [trials.operations[point - 1] for point in trials.write_points()]
    assert len(struck) > 60
    for name in ("model.apr", "state.safetensors", "state.json", "checkpoint.json"):
        staged = f"checkpoints/.{MIDDLE_STEP}.*.tmp"
        assert f"write {staged}/.{name}.*.tmp" in struck
        assert f"fsync {staged}/{name}" in struck
        assert f"os.remove checkpoints/.{MIDDLE_STEP}.*.old/{name}" in struck
    assert f"os.rename {staged} checkpoints/{MIDDLE_STEP}" in struck
    assert "write steps.jsonl" in struck


def test_f36_killed_at_a_write_point_the_run_loses_nothing(trials: Trials) -> None:
    chosen = points(trials, count=8, seed=36)
    assert len(chosen) > 10
    for point in chosen:
        assert trials.strike(trials.fault(point)).was_killed
        trials.go_on()
        trials.clear()


def test_f36_killed_again_while_it_goes_on_the_run_loses_nothing(trials: Trials) -> None:
    for point in (130, 60, 90):
        assert trials.strike(Fault(point)).was_killed
    trials.go_on()


def test_f36_killed_at_any_moment_the_run_loses_nothing(trials: Trials) -> None:
    killed: list[bool] = []
    for moment_s in (0.05, 0.2, 0.4):
        killed.append(trials.strike(kill_after_s=moment_s).was_killed)
        trials.go_on()
        trials.clear()
    assert killed[0]


@pytest.mark.parametrize("kind", ["ENOSPC", "EIO", "EROFS"])
def test_f36_a_disk_that_says_no_is_a_refusal_and_loses_nothing(
    trials: Trials, kind: Literal["ENOSPC", "EIO", "EROFS"]
) -> None:
    for point in random.Random(kind).sample(trials.points_where_it_fails(kind), 3):
        require_refused(trials.strike(trials.fault(point, kind)), trials.operations[point - 1])
        trials.go_on()
        trials.clear()


def test_f36_nothing_is_written_to_a_target_that_is_read_only(trials: Trials) -> None:
    require_refused(trials.strike(Fault(1, "EROFS")), "a read-only target")
    assert not list(trials.run_dir.rglob("*.*"))


def test_f39_a_checkpoint_lost_in_the_background_is_the_outcome(trials: Trials) -> None:
    renamed = trials.operations.index(
        f"os.rename checkpoints/.{MIDDLE_STEP}.*.tmp checkpoints/{MIDDLE_STEP}"
    )
    require_refused(trials.strike(trials.fault(renamed + 1, "EIO")), "a rename that fails")
    record = json.loads((trials.run_dir / "run.json").read_text())
    assert record["outcome"] == "artifact_lost"
    assert MIDDLE_STEP in record["outcome_detail"]
    assert [path.name for path in (trials.run_dir / "checkpoints").iterdir()] == ["step-00000001"]
    trials.go_on()


@pytest.mark.parametrize("command", ["start", "resume"])
def test_f36_a_second_process_on_a_run_is_refused(trials: Trials, command: str) -> None:
    if command == "resume":
        assert trials.strike(Fault(200)).was_killed
    before = {path for path in trials.run_dir.rglob("*") if path.name != ".lock"}
    with hold_run(trials.run_dir):
        refused = trials.strike()
    assert refused.returncode == 5
    assert "refused[run.busy]" in refused.err
    assert {path for path in trials.run_dir.rglob("*") if path.name != ".lock"} == before
    trials.go_on()


def test_f40_a_clock_that_jumps_enters_no_number(trials: Trials) -> None:
    (ended,) = trials.apr.call(
        "tests.kills.clock:run_under_a_jumping_clock", arguments=trials.flags
    )
    assert ended.out.endswith("0\n"), ended.err
    record = json.loads((trials.run_dir / "run.json").read_text())
    started, finished = (
        datetime.fromisoformat(record[name]) for name in ("started_at", "finished_at")
    )
    # It did jump, by more than any test takes.
    assert abs((finished - started).total_seconds()) > 3000
    log = [json.loads(line) for line in (trials.run_dir / "steps.jsonl").read_text().splitlines()]
    elapsed_s = [line["elapsed_s"] for line in log if line["kind"] == "step"]
    assert all(0 < before <= after < 600 for before, after in pairwise(elapsed_s))
    rates = record["throughput"]
    assert rates["tokens_per_s"] > rates["tokens_per_s_end_to_end"] > 0
    assert 0 < rates["checkpoint_fraction"] < 1
    assert rates["checkpoint_background_fraction"] > 0
    assert facts_of(trials.run_dir) == trials.undisturbed


@pytest.mark.parametrize("damage", ["moments", "log", "stray", "newest"])
def test_a_loss_is_seen(trials: Trials, damage: str) -> None:
    """The comparison itself: what it is for turns it red."""
    at_step_3 = next(
        number
        for number, operation in enumerate(trials.operations, start=1)
        if operation.startswith("open checkpoints/.step-00000003")
    )
    assert trials.strike(trials.fault(at_step_3 + 20)).was_killed
    newest = trials.run_dir / "checkpoints" / MIDDLE_STEP
    if damage == "moments":
        ended = trials.strike()
        assert ended.returncode == 0
        state = newest.with_name("step-00000003") / "state.safetensors"
        state.write_bytes(state.read_bytes()[:-1] + b"\x7f")
    elif damage == "log":
        lines = (trials.run_dir / "steps.jsonl").read_text().splitlines(keepends=True)
        (trials.run_dir / "steps.jsonl").write_text("".join(lines[1:]))
    elif damage == "stray":
        (trials.run_dir / "checkpoints" / ".step-00000009.stray").mkdir()
        (trials.run_dir / "checkpoints" / ".step-00000009.stray" / "x").touch()
    else:
        (newest / "checkpoint.json").unlink()
    with pytest.raises(Lost):
        trials.go_on()
