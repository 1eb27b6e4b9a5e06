"""When a run writes checkpoints, and what it does when none of them can be trusted."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_pretrain import record_of, same_run, stop_after
from tests.run_data import RunData

from apr.errors import Interrupted
from apr.jobs.pretrain import pretrain
from apr.jobs.resume import resume
from apr.jobs.sitting import Listener

ALL = {"keep": 100}


def saved_steps(run_dir: Path) -> list[int]:
    names = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    return [int(name.removeprefix("step-")) for name in names]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [2, 4, 6, 8]),
        ({"checkpoint_every": 1}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"checkpoint_every": 3, "eval_every": 4}, [3, 4, 6, 8]),
        # Weights that do not move are best at first: the best and the last must be there.
        ({"checkpoint_every": 100, "learning_rate": 1e-12, "patience": 100}, [2, 8]),
        ({"checkpoint_every": 3, "learning_rate": 1e-12, "patience": 100}, [2, 3, 6, 8]),
        ({"checkpoint_every": 100, "learning_rate": 1e-12, "patience": 1}, [2, 4]),
    ],
    ids=str,
)
def test_checkpoints_are_written_at_multiples_for_the_best_and_at_the_end(
    run_data: RunData, tmp_path: Path, options: dict[str, Any], expected: list[int]
) -> None:
    record = pretrain(run_data.config(tmp_path / "run", **(ALL | options)))
    assert saved_steps(tmp_path / "run") == expected
    assert record["val"]["best_step"] in expected
    assert record["config"]["checkpoint_every"] == options.get("checkpoint_every", 2)


@pytest.mark.parametrize(("checkpoint_every", "expected"), [(100, [5]), (4, [4, 5])])
def test_stopping_writes_one_more(
    run_data: RunData, tmp_path: Path, checkpoint_every: int, expected: list[int]
) -> None:
    options = {"checkpoint_every": checkpoint_every, "eval_every": 8}
    config = run_data.config(tmp_path / "run", **(ALL | options))
    with pytest.raises(Interrupted):
        pretrain(config, listener=Listener(should_stop=stop_after(6)))
    assert saved_steps(tmp_path / "run") == expected


def test_f34_checkpoints_leave_the_training_as_it_is(run_data: RunData, tmp_path: Path) -> None:
    often, seldom = tmp_path / "often", tmp_path / "seldom"
    pretrain(run_data.config(often, checkpoint_every=1))
    record = pretrain(run_data.config(seldom, checkpoint_every=8))
    same_run(often, seldom)
    assert 0 < record["throughput"]["checkpoint_fraction"] < 1
    assert record["throughput"]["checkpoint_background_fraction"] > 0


def test_f36_without_a_sound_checkpoint_the_run_begins_again_loudly(
    run_data: RunData, tmp_path: Path
) -> None:
    undisturbed, run_dir, heard = tmp_path / "undisturbed", tmp_path / "run", list[str]()
    pretrain(run_data.config(undisturbed))
    with pytest.raises(Interrupted):
        pretrain(run_data.config(run_dir), listener=Listener(should_stop=stop_after(6)))
    assert saved_steps(run_dir) == [4, 5]
    for state in run_dir.glob("checkpoints/*/state.json"):
        state.write_text(json.dumps(json.loads(state.read_text()) | {"tokens_seen": 1}))
    resume(run_dir, listener=Listener(notify=heard.append))
    [entry] = record_of(run_dir)["resumes"]
    assert entry["step"] == 0
    assert [reason.split(":")[0] for reason in entry["passed_over"]] == [
        "step-00000005",
        "step-00000004",
    ]
    assert sum("passed over" in text for text in heard) == 2
    same_run(undisturbed, run_dir)
