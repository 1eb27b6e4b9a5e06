"""Which checkpoints stay: the latest that verify, the best of each, and nothing half-deleted."""

import shutil
from pathlib import Path

import pytest
from tests.unit.train.checkpoint_fixture import trained

from apr.train.checkpoint import checkpoint_dir, latest_checkpoint, require_verified
from apr.train.retention import Retention, clear_leftovers


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained().save(tmp_path_factory.mktemp("one"), 7)


def make(run_dir: Path, one: Path, *steps: int) -> None:
    """Checkpoints of several steps; what they hold does not matter here."""
    for step in steps:
        shutil.copytree(one, checkpoint_dir(run_dir, step))


def left(run_dir: Path) -> list[int]:
    return sorted(
        int(path.name.removeprefix("step-")) for path in (run_dir / "checkpoints").iterdir()
    )


def damage(directory: Path, how: str) -> None:
    """Make a checkpoint one that does not verify."""
    if how == "flip":
        data = bytearray((directory / "model.apr").read_bytes())
        data[len(data) // 2] ^= 1
        (directory / "planted").write_bytes(data)
        (directory / "planted").replace(directory / "model.apr")
    else:
        (directory / "checkpoint.json").unlink()


def test_the_latest_stay(tmp_path: Path, one: Path) -> None:
    make(tmp_path, one, 1, 2, 3, 4)
    Retention(tmp_path, keep=2).apply()
    assert left(tmp_path) == [3, 4]


@pytest.mark.parametrize("how", ["flip", "unlisted"])
@pytest.mark.parametrize("keep", [1, 2])
def test_f36_two_damaged_checkpoints_push_no_good_one_out(
    tmp_path: Path, one: Path, how: str, keep: int
) -> None:
    make(tmp_path, one, 1, 2, 3, 4, 5)
    damage(checkpoint_dir(tmp_path, 5), how)
    damage(checkpoint_dir(tmp_path, 3), how)
    Retention(tmp_path, keep=keep).apply()
    # The newer damaged ones are left for a person to look at.
    assert left(tmp_path) == ([4, 5] if keep == 1 else [2, 3, 4, 5])
    found, passed_over = latest_checkpoint(tmp_path)
    assert found == checkpoint_dir(tmp_path, 4)
    assert [reason.split(":")[0] for reason in passed_over] == ["step-00000005"]


def test_f36_damaged_after_it_was_verified_does_not_count_either(tmp_path: Path, one: Path) -> None:
    make(tmp_path, one, 1, 2, 3)
    retention = Retention(tmp_path, keep=2)
    retention.apply()
    assert left(tmp_path) == [2, 3]
    damage(checkpoint_dir(tmp_path, 3), "flip")
    make(tmp_path, one, 4)
    retention.vouch(checkpoint_dir(tmp_path, 4))
    retention.apply()
    assert left(tmp_path) == [2, 3, 4]
    make(tmp_path, one, 5)
    retention.apply()
    assert left(tmp_path) == [4, 5]


def test_fewer_than_are_kept_delete_nothing(tmp_path: Path, one: Path) -> None:
    make(tmp_path, one, 1, 2, 3)
    damage(checkpoint_dir(tmp_path, 1), "flip")
    Retention(tmp_path, keep=3).apply()
    assert left(tmp_path) == [1, 2, 3]


def test_the_best_one_of_each_that_stays_stays(tmp_path: Path) -> None:
    now = trained()
    for step, best in [(1, None), (2, 1), (3, 3), (4, 3), (5, 3)]:
        now.save(tmp_path, step, best_step=best)
    Retention(tmp_path, keep=1).apply()
    assert left(tmp_path) == [3, 5]


def test_what_was_half_written_or_half_deleted_goes_and_nothing_else(
    tmp_path: Path, one: Path
) -> None:
    make(tmp_path, one, 1)
    checkpoints, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("x")
    for name in (".step-00000002.ab_d1234.tmp", ".step-00000003.0123abcd.old"):
        (checkpoints / name).mkdir()
        (checkpoints / name / "model.apr").write_text("x")
    others = [".step-00000002.mine", "notes", ".step-2.ab_d1234.tmp"]
    for name in others:
        (checkpoints / name).mkdir()
    (checkpoints / ".step-00000004.abcdefgh.tmp").symlink_to(elsewhere)
    clear_leftovers(tmp_path)
    expected = {"step-00000001", ".step-00000004.abcdefgh.tmp", *others}
    assert {path.name for path in checkpoints.iterdir()} == expected
    assert (elsewhere / "mine").exists()
    require_verified(checkpoint_dir(tmp_path, 1))
