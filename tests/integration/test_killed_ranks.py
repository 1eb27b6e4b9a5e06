"""One of two ranks is killed over a checkpoint: the other one ends, and the run loses nothing.

A sample; `make kills` strikes everywhere.
"""

import random
import shutil
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.kills.faults import Fault
from tests.kills.rank_trial import LAST_STEP, RankTrials, Strike
from tests.kills.run import require_refused
from tests.kills.trial import MIDDLE_STEP, Lost, facts_of, require_same
from tests.run_data import RunData
from tests.warm import Warm

from apr.files import sha256_file

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def begun(ranks: Warm, ranks_data: RunData, tmp_path_factory: pytest.TempPathFactory) -> RankTrials:
    run_dir = tmp_path_factory.mktemp("killed") / "run"
    return RankTrials.begin(ranks_data, run_dir, ranks, kind="fsdp")


@pytest.fixture
def trials(begun: RankTrials) -> Generator[RankTrials]:
    yield begun
    begun.clear()


def at(trials: RankTrials, rank: int, words: str) -> Strike:
    """The last time that rank does such a thing."""
    return [each for each in trials.strikes() if each.rank == rank and words in str(each)][-1]


def test_the_strikes_are_all_of_a_checkpoint_on_both_sides(trials: RankTrials) -> None:
    struck = {(each.rank, each.fault.operation) for each in trials.strikes()}
    assert len(trials.strikes()) > 80
    staged, share = f"checkpoints/.{MIDDLE_STEP}.*.tmp", "state-00002-of-00002.safetensors"
    assert (0, f"fsync {staged}/{share}") in struck
    assert (0, f"os.rename {staged} checkpoints/{MIDDLE_STEP}") in struck
    for step in (MIDDLE_STEP, LAST_STEP):
        place = f"checkpoints/.{step}.*.shares"
        assert (1, f"os.rename {place}/1.safetensors {place}/{share}") in struck


def test_f36_killed_at_a_write_point_of_either_rank_the_run_loses_nothing(
    trials: RankTrials,
) -> None:
    chosen = random.Random(36).sample(trials.strikes(), 2)
    chosen += [
        # The first rank is waiting for the share, and has nothing else to do.
        at(trials, 1, f"{LAST_STEP}.*.shares/state"),
        # The share is whole, and nobody collects it.
        at(trials, 0, "shares/state"),
    ]
    for strike in chosen:
        trials.strike(strike)
        trials.go_on(world_size=2)
        trials.clear()


def test_f36_killed_with_two_ranks_the_run_goes_on_with_one(trials: RankTrials) -> None:
    trials.strike(at(trials, 0, "shares/state"))
    trials.go_on(world_size=1)


def test_f36_a_disk_that_says_no_to_a_share_ends_both_ranks(trials: RankTrials) -> None:
    strike = at(trials, 1, f"{LAST_STEP}.*.shares/state")
    first, second = trials.warm.run(
        trials.flags,
        world_size=2,
        watched=trials.run_dir,
        faults={1: replace(strike.fault, kind="EIO")},
    )
    require_refused(second, str(strike))
    assert "rank 1: " in second.err
    assert first.returncode == 5
    assert "refused[ranks.lost]" in first.err
    trials.go_on(world_size=2)


def resumed(trials: RankTrials, late: Path | None) -> dict[str, Any]:
    ended = trials.warm.call(
        "tests.ranks.checks:resumed_run",
        world_size=2,
        run_dir=str(trials.run_dir),
        late=late and str(late),
    )
    assert [(each.returncode, each.answer) for each in ended] == [(0, None)] * 2, ended
    return facts_of(trials.run_dir)


def test_f36_a_share_of_an_earlier_sitting_is_in_no_checkpoint(
    trials: RankTrials, tmp_path: Path
) -> None:
    """A rank that outlives the first one may leave its share when the run has gone on already."""
    operation = at(trials, 0, "shares/state").fault.operation or ""
    trials.strike(Strike(0, Fault(1, "kill", operation.replace(MIDDLE_STEP, LAST_STEP))))
    checkpoints = trials.run_dir / "checkpoints"
    (left,) = checkpoints.glob(f".{LAST_STEP}*.shares")
    late = Path(shutil.copytree(left, tmp_path / left.name))
    assert [each.name for each in late.iterdir()] == ["state-00002-of-00002.safetensors"]
    shutil.copytree(trials.run_dir, tmp_path / "killed")
    expected = resumed(trials, None)
    share = f"checkpoints/{LAST_STEP}/state-00002-of-00002.safetensors"
    assert expected["hashes"][share] != sha256_file(late / Path(share).name)
    trials.clear()
    shutil.copytree(tmp_path / "killed", trials.run_dir)
    resumed(trials, late)
    # It lies there still, for the next resume to clear away.
    shutil.rmtree(checkpoints / late.name, ignore_errors=True)
    require_same(facts_of(trials.run_dir), expected)


@pytest.mark.parametrize("damage", ["stray", "half"])
def test_a_loss_is_seen(trials: RankTrials, damage: str) -> None:
    """The comparison itself: what it is for turns it red."""
    trials.strike(at(trials, 1, f"{LAST_STEP}.*.shares/state"))
    checkpoints = trials.run_dir / "checkpoints"
    if damage == "stray":
        (checkpoints / ".step-00000002.stray.shares").mkdir()
    else:
        (checkpoints / MIDDLE_STEP / "state-00002-of-00002.safetensors").unlink()
    with pytest.raises(Lost):
        trials.go_on(world_size=2)


def test_a_rank_that_is_not_killed_is_no_trial(trials: RankTrials) -> None:
    with pytest.raises(Lost, match="no kill"):
        trials.strike(Strike(1, Fault(99, "kill", "os.rename nothing")))
