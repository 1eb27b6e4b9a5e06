"""F39: every way a run can end has its own word and its own exit code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.run_data import RunData

from apr.cli.main import run
from apr.errors import IoFailed, Refusal
from apr.jobs.pretrain import pretrain
from apr.jobs.resume import resume
from apr.jobs.sitting import Listener
from apr.progress import Progress
from apr.train.run_record import OUTCOME_EXIT_CODES


def record_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "run.json").read_text())


def at_step(number: int, plant: Callable[[], None]) -> Listener:
    """Something that happens to a run when it has taken a step."""

    def heard(progress: Progress) -> None:
        if progress.activity == "training" and f"step {number} of" in str(progress):
            plant()

    return Listener(progress=heard)


def test_a_budget_that_ends_above_the_target_is_no_success_in_words(
    run_data: RunData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*run_data.flags(tmp_path / "run"), "--target-val-loss", "1.5"]
    assert run(["pretrain", *flags]) == 0
    said = capsys.readouterr().out
    assert said.startswith("budget_exhausted: ")
    assert "the target of 1.5 was not reached" in said
    assert "converged" not in said.lower()
    assert "target_met" not in said
    assert record_of(tmp_path / "run")["val"]["best_loss_nats"] > 1.5


def test_the_last_checkpoint_cannot_be_written(run_data: RunData, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    checkpoints = run_dir / "checkpoints"

    def stand_in_the_way() -> None:
        checkpoints.rmdir()
        checkpoints.write_text("no directory")

    with pytest.raises(IoFailed) as refused:
        # The only checkpoint of the run is its last, so that nothing is being written before.
        pretrain(run_data.config(run_dir, eval_every=8), listener=at_step(7, stand_in_the_way))
    assert refused.value.exit_code == OUTCOME_EXIT_CODES["artifact_lost"] == 7
    record = record_of(run_dir)
    assert record["outcome"] == "artifact_lost"
    assert record["model"] is None
    assert not (run_dir / "model.apr").exists()


def test_a_run_that_lost_its_disk_names_the_command_that_goes_on(
    run_data: RunData, tmp_path: Path
) -> None:
    """The command of its start would be refused from here on."""
    run_dir = tmp_path / "a run"
    checkpoints = run_dir / "checkpoints"

    def stand_in_the_way() -> None:
        checkpoints.rmdir()
        checkpoints.write_text("no directory")

    config = run_data.config(run_dir, eval_every=8)
    with pytest.raises(IoFailed) as refused:
        pretrain(config, listener=at_step(7, stand_in_the_way))
    assert refused.value.fix.endswith(f"then run apr pretrain --resume '{run_dir}'")
    checkpoints.unlink()
    with pytest.raises(Refusal) as again:
        pretrain(config)
    assert again.value.id == "run.exists"
    assert resume(run_dir)["outcome"] == "budget_exhausted"


def test_a_run_that_has_not_begun_is_not_to_be_resumed(run_data: RunData, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(IoFailed) as refused:
        pretrain(run_data.config(tmp_path / "file" / "run"))
    assert "--resume" not in refused.value.fix


def test_a_run_that_is_stopped_without_saving(run_data: RunData, tmp_path: Path) -> None:
    """Ctrl-C that is not waited for."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(run_data.config(tmp_path / "run"), listener=at_step(3, interrupt))
    record = record_of(tmp_path / "run")
    assert (record["outcome"], record["model"]) == ("interrupted", None)
    assert record["outcome_detail"] == "stopped at once, without saving"


def test_a_validation_that_finds_no_number_ends_the_run(run_data: RunData, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with pytest.raises(Refusal) as refused:
        pretrain(run_data.config(run_dir, learning_rate=1e15, warmup_steps=0, eval_every=1))
    assert refused.value.id == "train.non-finite-validation"
    assert refused.value.exit_code == OUTCOME_EXIT_CODES["aborted"] == 5
    record = record_of(run_dir)
    assert record["outcome"] == "aborted"
    assert "train.non-finite-validation" in record["outcome_detail"]
    assert not (run_dir / "model.apr").exists()


def test_a_bug_in_the_middle_is_no_success_either(run_data: RunData, tmp_path: Path) -> None:
    def break_off() -> None:
        raise ZeroDivisionError("planted")

    with pytest.raises(ZeroDivisionError):
        pretrain(run_data.config(tmp_path / "run"), listener=at_step(3, break_off))
    record = record_of(tmp_path / "run")
    assert record["outcome"] == "aborted"
    assert record["outcome_detail"] == "ZeroDivisionError: planted"


def test_the_harmless_twin(run_data: RunData, tmp_path: Path) -> None:
    heard: list[int] = []
    record = pretrain(
        run_data.config(tmp_path / "run"), listener=at_step(8, lambda: heard.append(8))
    )
    assert heard == [8]
    assert (record["outcome"], record["outcome_detail"]) == ("budget_exhausted", None)
    assert (tmp_path / "run" / record["model"]["path"]).is_file()


def test_words_of_success_are_those_that_exit_with_0() -> None:
    good = {word for word, code in OUTCOME_EXIT_CODES.items() if code == 0}
    assert good == {"target_met", "budget_exhausted", "early_stop"}
    assert set(OUTCOME_EXIT_CODES) - good == {"aborted", "artifact_lost", "interrupted"}
