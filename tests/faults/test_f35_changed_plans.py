"""F34, F35: a resume under a changed plan, and a resume that is not the same run."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.run_data import RunData

from apr.errors import Interrupted, Refusal
from apr.jobs.pretrain import pretrain
from apr.jobs.resume import resume
from apr.jobs.sitting import Listener
from apr.train.changes import KINDS
from apr.train.config import TrainConfig
from apr.train.schedule import learning_rate_at

CONSTANT: dict[str, Any] = {"schedule": "constant", "warmup_steps": 1}


def stopped(run_data: RunData, run_dir: Path, *, after: int = 5, **changes: Any) -> Path:
    """A run that was asked to stop after some steps."""
    # It is asked once before the first step.
    asked = iter(range(after + 1))
    with pytest.raises(Interrupted):
        pretrain(
            run_data.config(run_dir, **changes),
            listener=Listener(should_stop=lambda: next(asked, None) is None),
        )
    return run_dir


@pytest.fixture(scope="module")
def started(run_data: RunData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run stopped after five of eight steps, its learning rate constant."""
    return stopped(run_data, tmp_path_factory.mktemp("started") / "run", **CONSTANT)


@pytest.fixture
def run_dir(started: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(started, tmp_path / "run"))


def lines_of(run_dir: Path, kind: str = "step") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run_dir / "steps.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_every_field_of_a_run_is_classified() -> None:
    assert set(KINDS) == set(TrainConfig.model_fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 8),
        ("seq_length", 16),
        ("seed", 43),
        ("document_mask", False),
        ("eval_tokens", 600),
        ("arch", "demo"),
        ("vocab_size", 600),
        ("mode", "finetune"),
        ("optimizer", "muon"),
    ],
)
def test_what_decided_the_steps_taken_is_refused(run_dir: Path, field: str, value: Any) -> None:
    before = (run_dir / "run.json").read_bytes()
    with pytest.raises(Refusal) as refused:
        resume(run_dir, changes={field: value})
    # finetune without an initial model is refused as in any run.
    assert refused.value.id in ("resume.another-run", "config.init-missing")
    assert refused.value.exit_code == 2
    assert (run_dir / "run.json").read_bytes() == before


def test_what_later_steps_depend_on_is_said_and_applied(run_dir: Path) -> None:
    record = resume(run_dir, changes={"num_steps": 12, "max_grad_norm": 0.01, "keep": 7})
    (entry,) = record["resumes"]
    assert entry["step"] == 5
    del entry["config_changed"]["run_dir"]
    assert entry["config_changed"] == {
        "num_steps": [8, 12],
        "max_grad_norm": [1.0, 0.01],
        "keep": [2, 7],
    }
    # What the run was started with stays what its models name by hash.
    assert record["config"]["num_steps"] == 8
    assert record["outcome"] == "budget_exhausted"
    assert [line["step"] for line in lines_of(run_dir)] == list(range(1, 13))
    with pytest.raises(Refusal) as refused:
        resume(run_dir)
    assert refused.value.id == "run.finished"


def test_a_changed_clip_changes_the_steps_after_it_and_none_before(
    run_data: RunData, run_dir: Path, tmp_path: Path
) -> None:
    pretrain(run_data.config(tmp_path / "undisturbed", **CONSTANT))
    resume(run_dir, changes={"max_grad_norm": 0.001})
    expected, found = (
        [line["loss_nats"] for line in lines_of(directory)]
        for directory in (tmp_path / "undisturbed", run_dir)
    )
    # Step 6 still starts from the old weights; its update is the first one clipped.
    assert found[:6] == expected[:6]
    assert found[6:] != expected[6:]


def test_f24_the_optimizers_settings_are_read_back(run_data: RunData, tmp_path: Path) -> None:
    options: dict[str, Any] = {"adam_beta2": 0.9, "weight_decay": 0.3}
    run_dir = stopped(run_data, tmp_path / "run", **CONSTANT, **options)
    groups = json.loads((run_dir / "run.json").read_text())["optimizer"]["groups"]
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert [group["betas"] for group in groups] == [[0.9, 0.9], [0.9, 0.9]]
    record = resume(run_dir, changes={"adam_beta2": 0.99, "weight_decay": 0.2})
    groups = record["optimizer"]["groups"]
    assert [group["weight_decay"] for group in groups] == [0.2, 0.0]
    assert [group["betas"][1] for group in groups] == [0.99, 0.99]
    counted = sum(group["num_parameters"] for group in groups)
    assert counted == record["architecture"]["num_parameters"]


def test_a_cosine_cannot_be_stretched(run_data: RunData, tmp_path: Path) -> None:
    run_dir = stopped(run_data, tmp_path / "run", after=7)
    for changes in ({"num_steps": 40}, {"learning_rate": 1e-2}, {"schedule": "constant"}):
        with pytest.raises(Refusal) as refused:
            resume(run_dir, changes=changes)
        assert refused.value.id == "resume.rate-jumps"
    # The twin: the same stretch early in a long run hardly moves the rate.
    assert resume(run_dir)["outcome"] == "budget_exhausted"


def test_a_wsd_run_is_prolonged_before_it_falls(run_data: RunData, tmp_path: Path) -> None:
    wsd: dict[str, Any] = {"schedule": "wsd", "warmup_steps": 1, "decay_fraction": 0.25}
    run_dir = stopped(run_data, tmp_path / "run", after=5, **wsd)
    record = resume(run_dir, changes={"num_steps": 12})
    assert record["outcome"] == "budget_exhausted"
    plan = run_data.config(tmp_path / "x", num_steps=12, **wsd)
    rates = [line["lr_applied"] for line in lines_of(run_dir)]
    assert rates == [learning_rate_at(step, plan) for step in range(1, 13)]


def test_steps_that_were_taken_cannot_be_taken_back(run_dir: Path) -> None:
    with pytest.raises(Refusal) as refused:
        resume(run_dir, changes={"num_steps": 4})
    assert refused.value.id == "resume.no-steps-left"


def test_a_run_whose_patience_ended_goes_on_with_more(run_data: RunData, tmp_path: Path) -> None:
    options = CONSTANT | {"patience": 1, "learning_rate": 1e-9}
    record = pretrain(run_data.config(tmp_path / "run", **options, min_delta=100.0))
    assert record["outcome"] == "early_stop"
    record = resume(tmp_path / "run", changes={"patience": 9})
    assert record["outcome"] == "budget_exhausted"


def test_a_corpus_that_has_moved_is_found_by_its_hash(
    run_data: RunData, run_dir: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(run_data.train, tmp_path / "moved"))
    other = run_data.val
    with pytest.raises(Refusal) as refused:
        resume(run_dir, changes={"dataset": other})
    assert refused.value.id == "resume.inputs-changed"
    record = resume(run_dir, changes={"dataset": moved})
    assert record["outcome"] == "budget_exhausted"
    assert str(moved) in json.dumps(record["resumes"][0]["config_changed"]["dataset"])


def test_an_initial_model_and_an_existing_run_are_different_commands(
    run_data: RunData, run_dir: Path
) -> None:
    with pytest.raises(Refusal) as refused:
        pretrain(run_data.config(run_dir, init=run_dir / "x.apr", arch=None))
    assert refused.value.id == "run.exists"
    assert f"apr pretrain --resume {run_dir}" in refused.value.fix


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_from_its_own_init(
    run_data: RunData, run_dir: Path, tmp_path: Path
) -> None:
    resume(run_dir)
    base = run_dir / "model.apr"
    expected = pretrain(run_data.config(tmp_path / "whole", init=base, arch=None))
    killed = stopped(run_data, tmp_path / "killed", after=0, init=base, arch=None)
    assert not list((killed / "checkpoints").iterdir())
    moved = Path(shutil.copy(base, tmp_path / "moved.apr"))
    damaged = tmp_path / "damaged.apr"
    damaged.write_bytes(base.read_bytes()[:-1])
    with pytest.raises(Refusal) as refused:
        resume(killed, changes={"init": damaged})
    assert refused.value.id == "resume.inputs-changed"
    record = resume(killed, changes={"init": moved})
    assert record["val"]["best_loss_nats"] == expected["val"]["best_loss_nats"]
    assert lines_of(killed)[-1]["loss_nats"] == lines_of(tmp_path / "whole")[-1]["loss_nats"]


def test_a_checkpoint_of_another_run_is_not_gone_on_with(
    run_data: RunData, run_dir: Path, tmp_path: Path
) -> None:
    other = stopped(run_data, tmp_path / "other", seed=7, **CONSTANT)
    shutil.rmtree(other / "checkpoints")
    shutil.copytree(run_dir / "checkpoints", other / "checkpoints")
    with pytest.raises(Refusal) as refused:
        resume(other)
    assert refused.value.id == "resume.foreign-checkpoint"
    # The twin: its own.
    assert resume(run_dir)["outcome"] == "budget_exhausted"


def test_an_ended_run_without_its_checkpoints_is_not_trained_from_nothing(run_dir: Path) -> None:
    resume(run_dir)
    model = (run_dir / "model.apr").read_bytes()
    shutil.rmtree(run_dir / "checkpoints")
    for changes in ({}, {"num_steps": 20}):
        with pytest.raises(Refusal) as refused:
            resume(run_dir, changes=changes)
        assert refused.value.id == "run.finished"
    assert (run_dir / "model.apr").read_bytes() == model


def test_what_is_left_of_a_run_without_its_record_is_not_trained_over(
    run_data: RunData, run_dir: Path
) -> None:
    (run_dir / "run.json").unlink()
    with pytest.raises(Refusal) as refused:
        pretrain(run_data.config(run_dir, seed=7))
    assert refused.value.id == "run.exists"
    assert (run_dir / "checkpoints").is_dir()


def test_f32_a_changed_plan_is_judged_again(run_dir: Path) -> None:
    """Its verdict stands with the resume; here it is waived, as at the start."""
    record = resume(run_dir, changes={"num_steps": 12})
    (gate,) = record["resumes"][0]["gates"]
    assert (gate["id"], gate["verdict"]) == ("preflight.token-budget", "FAIL")
    assert gate["waiver"] == {"reason": "a test"}


def test_f32_a_changed_plan_without_a_waiver_is_refused_and_with_one_goes_on(
    run_data: RunData, tmp_path: Path
) -> None:
    """A budget that passed at the start, and a run that is then to end early."""
    # So many rows of so few tokens that even this text, repeated, is worth enough.
    longer = CONSTANT | {"num_steps": 2 * 10**4, "batch_size": 32, "seq_length": 128, "waive": {}}
    run_dir = stopped(run_data, tmp_path / "run", after=1, **longer)
    started = json.loads((run_dir / "run.json").read_text())
    budget = next(g for g in started["gates"] if g["id"] == "preflight.token-budget")
    assert (budget["verdict"], budget["waiver"]) == ("PASS", None)
    with pytest.raises(Refusal) as refused:
        resume(run_dir, changes={"num_steps": 2, "eval_every": 2})
    assert refused.value.id == "preflight.token-budget"
    waived = {"preflight.token-budget": "it is to end early"}
    record = resume(run_dir, changes={"num_steps": 2, "eval_every": 2, "waive": waived})
    (gate,) = record["resumes"][0]["gates"]
    assert gate["waiver"] == {"reason": "it is to end early"}


def test_another_precision_is_judged_before_it_is_used(run_dir: Path) -> None:
    record = resume(run_dir, changes={"precision": "bf16"})
    (entry,) = record["resumes"]
    assert [gate["id"] for gate in entry["gates"]] == ["preflight.gradients"]
    assert entry["gates"][0]["verdict"] == "PASS"


def test_an_initial_model_beside_a_resume_must_be_the_same(
    run_data: RunData, run_dir: Path, tmp_path: Path
) -> None:
    resume(run_dir)
    continued = stopped(
        run_data, tmp_path / "continued", init=run_dir / "model.apr", arch=None, **CONSTANT
    )
    with pytest.raises(Refusal) as refused:
        resume(continued, changes={"init": tmp_path / "nowhere.apr"})
    assert refused.value.id == "resume.inputs-changed"
    moved = Path(shutil.copy(run_dir / "model.apr", tmp_path / "moved.apr"))
    assert resume(continued, changes={"init": moved})["outcome"] == "budget_exhausted"


@pytest.mark.parametrize("target", [6.9, 1.0])
def test_f33_a_target_that_is_met_already_is_no_target_of_a_resume(
    run_dir: Path, target: float
) -> None:
    """Two steps later the run would end as one that met its target."""
    best = min(line["loss_nats"] for line in lines_of(run_dir, "val"))
    before = (run_dir / "run.json").read_bytes()
    if target < best:
        assert resume(run_dir, changes={"target_val_loss": target})["outcome"] == "budget_exhausted"
        return
    with pytest.raises(Refusal) as refused:
        resume(run_dir, changes={"target_val_loss": target})
    assert (refused.value.id, refused.value.exit_code) == ("config.target-met-already", 2)
    assert (run_dir / "run.json").read_bytes() == before


def test_a_run_that_has_ended_names_the_change_that_opens_it_again(
    run_data: RunData, tmp_path: Path
) -> None:
    """Each piece of advice is taken, and works."""
    endless = CONSTANT | {"learning_rate": 1e-9, "patience": 1, "min_delta": 100.0}
    plans: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
        (
            "target_met",
            CONSTANT | {"target_val_loss": 6.2, "stop_at_target": True, "learning_rate": 1e-2},
            "--target-val-loss",
            {"target_val_loss": 0.1},
        ),
        ("early_stop", endless, "--patience", {"patience": 9}),
        ("budget_exhausted", CONSTANT | {"num_steps": 2}, "--num-steps", {"num_steps": 4}),
    ]
    for outcome, options, option, changes in plans:
        run_dir = tmp_path / outcome
        assert pretrain(run_data.config(run_dir, **options))["outcome"] == outcome
        # More steps are the advice of one ending alone.
        useless = {} if outcome == "budget_exhausted" else {"num_steps": 10}
        with pytest.raises(Refusal) as refused:
            resume(run_dir, changes=useless)
        assert refused.value.id == "run.finished"
        advised = [each for *_, each, _ in plans if f"{each} " in refused.value.fix]
        assert advised == [option], refused.value.fix
        assert f"apr pretrain --resume {run_dir} {option}" in refused.value.fix
        assert resume(run_dir, changes=changes)["outcome"] == "budget_exhausted"


def test_an_ended_run_without_checkpoints_is_not_told_to_go_on(run_dir: Path) -> None:
    resume(run_dir)
    shutil.rmtree(run_dir / "checkpoints")
    with pytest.raises(Refusal) as refused:
        resume(run_dir, changes={"num_steps": 20})
    assert refused.value.id == "run.finished"
    assert "--resume" not in refused.value.fix
    assert "--init" in refused.value.fix


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("eval_tokens", 600, "the validations so far"),
        ("resolution_nats", 0.2, "the held-out set was judged"),
        ("batch_size", 8, "the steps taken depend"),
    ],
)
def test_a_change_that_is_refused_is_refused_for_its_own_reason(
    run_dir: Path, field: str, value: Any, reason: str
) -> None:
    with pytest.raises(Refusal) as refused:
        resume(run_dir, changes={field: value})
    assert refused.value.id == "resume.another-run"
    reasons = ("the validations so far", "the held-out set was judged", "the steps taken depend")
    assert [each for each in reasons if each in refused.value.expected] == [reason]
