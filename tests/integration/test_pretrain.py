"""A whole run: its record, its files, every outcome word, and resume as the same run."""

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.run_data import RunData

from apr.errors import Interrupted, IoFailed, Refusal
from apr.files import read_json, sha256_file, write_json
from apr.jobs.pretrain import pretrain
from apr.jobs.reopen import require_same_loss
from apr.jobs.resume import resume
from apr.jobs.sitting import Listener
from apr.model.weights import load_model
from apr.shards.reader import ShardReader
from apr.train.batches import TokenRows
from apr.train.checkpoint import checkpoint_dir, latest_checkpoint
from apr.train.config import TrainConfig
from apr.train.gates import NEVER_WAIVED, UPSTREAM_IDS
from apr.train.held_out_file import ROWS_FILE
from apr.train.loss import summed_loss
from apr.train.schedule import learning_rate_at
from apr.train.validation import validate, whole_set


@pytest.fixture(scope="module")
def finished(run_data: RunData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One undisturbed run."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    pretrain(run_data.config(run_dir, sample_prompts=("def ",)))
    return run_dir


def record_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "run.json").read_text())


def steps_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "steps.jsonl").read_text().splitlines()]


def stop_after(num_questions: int) -> Callable[[], bool]:
    """Answer yes to every question after the first `num_questions`."""
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > num_questions

    return should_stop


def stopped_run(run_data: RunData, run_dir: Path, *, questions: int) -> None:
    """The same run as `finished`, stopped after the loop has asked so often."""
    with pytest.raises(Interrupted):
        pretrain(
            run_data.config(run_dir, sample_prompts=("def ",)),
            listener=Listener(should_stop=stop_after(questions)),
        )


def test_the_record_says_what_happened(finished: Path, run_data: RunData) -> None:
    record = record_of(finished)
    assert record["schema"] == "apr-run-v1"
    assert record["outcome"] == "budget_exhausted"
    assert record["tokens_seen"] == 8 * 4 * 32
    assert record["val"]["source"] == "given"
    assert record["val"]["best_loss_nats"] < record["init_loss_nats"]
    model = load_model(finished / "model.apr").model
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert record["architecture"]["num_parameters"] == counted
    assert (
        record["inputs"]["train"][0]["sha256"] == ShardReader.open(run_data.train).manifest_sha256
    )
    assert [gate["id"] for gate in record["gates"]] == [
        id for id in UPSTREAM_IDS if id not in NEVER_WAIVED
    ]
    assert {gate["verdict"] for gate in record["gates"] if not gate["waiver"]} == {"PASS"}
    assert record["samples"][0]["prompt"] == "def "
    assert record["throughput"]["mfu"] is None
    assert record["throughput"]["mfu_reason"]
    assert (finished / "report.html").stat().st_size > 1000


def test_f24_the_rate_in_the_log_is_the_schedule_read_back(finished: Path) -> None:
    config = TrainConfig.model_validate(record_of(finished)["config"])
    steps = [line for line in steps_of(finished) if line["kind"] == "step"]
    assert [line["step"] for line in steps] == list(range(1, 9))
    assert [line["lr_applied"] for line in steps] == [
        learning_rate_at(step, config) for step in range(1, 9)
    ]
    assert all(after["elapsed_s"] >= before["elapsed_s"] for before, after in pairwise(steps))


def test_validation_runs_before_step_1_and_at_intervals_on_one_set(finished: Path) -> None:
    validations = [line for line in steps_of(finished) if line["kind"] == "val"]
    assert [line["step"] for line in validations] == [0, 2, 4, 6, 8]
    assert len({line["set_sha256"] for line in validations}) == 1


def test_the_model_file_has_the_recorded_loss_in_a_fresh_process(
    finished: Path, run_data: RunData
) -> None:
    record = record_of(finished)
    config = TrainConfig.model_validate(record["config"])
    val = record["val"]
    expected = {"recorded_nats": val["best_loss_nats"], "set_sha256": val["set_sha256"]}
    reopened = require_same_loss(finished / "model.apr", config, **expected)
    assert reopened.loss_nats == pytest.approx(val["best_loss_nats"], abs=1e-6)
    expected["recorded_nats"] += 0.01
    with pytest.raises(Refusal) as refused:
        require_same_loss(finished / "model.apr", config, **expected)
    assert refused.value.id == "model.loss-differs"


def test_f22_the_held_out_loss_does_not_depend_on_the_batch_size(
    finished: Path, run_data: RunData
) -> None:
    loaded = load_model(finished / "model.apr")
    assert loaded.tokenizer is not None
    shards = ShardReader.open(run_data.val)
    held_out = whole_set(TokenRows(shards, 0, shards.num_tokens, 32), loaded.tokenizer)
    assert held_out.num_tokens == shards.num_tokens - 1
    losses = [
        validate(
            loaded.model, held_out, batch_size=size, document_mask=True, summed_loss=summed_loss
        ).loss_nats
        for size in (1, 7, 64)
    ]
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-5)
    assert losses[0] == pytest.approx(record_of(finished)["val"]["best_loss_nats"], abs=1e-5)


def resume_and_compare(run_dir: Path, undisturbed: Path) -> None:
    resume(run_dir)
    same_run(undisturbed, run_dir)


def same_run(one: Path, other: Path) -> None:
    """Weights, moments and logs of two runs are the same bits."""
    last = [checkpoint_dir(run, 8) / "state.safetensors" for run in (one, other)]
    moments, expected = load_file(last[1]), load_file(last[0])
    assert moments.keys() == expected.keys()
    assert all(tensor.equal(expected[name]) for name, tensor in moments.items())
    models = [load_model(run / "model.apr").model.state_dict() for run in (one, other)]
    assert all(tensor.equal(models[0][name]) for name, tensor in models[1].items())
    rows = [(run / ROWS_FILE).read_bytes() for run in (one, other)]
    assert rows[0] == rows[1]
    logs = [
        [{k: v for k, v in line.items() if k != "elapsed_s"} for line in steps_of(run)]
        for run in (one, other)
    ]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 13


@pytest.mark.parametrize("stop_at", [1, 4, 5, 7], ids=lambda step: f"step{step}")
def test_f34_a_resumed_run_equals_the_uninterrupted_one(
    finished: Path, run_data: RunData, tmp_path: Path, stop_at: int
) -> None:
    run_dir = tmp_path / "run"
    config = run_data.config(run_dir, sample_prompts=("def ",))
    # One question is asked before step 1, then one before every step.
    with pytest.raises(Interrupted) as stopped:
        pretrain(config, listener=Listener(should_stop=stop_after(stop_at + 1)))
    assert stopped.value.exit_code == 130
    assert stopped.value.resume_command == f"apr pretrain --resume {run_dir}"
    assert record_of(run_dir)["outcome"] == "interrupted"
    assert not (run_dir / "model.apr").exists()
    resume(run_dir)
    record = record_of(run_dir)
    assert record["outcome"] == "budget_exhausted"
    assert [entry["step"] for entry in record["resumes"]] == [stop_at]
    same_run(finished, run_dir)


def test_f34_a_resumed_run_in_bf16_equals_the_uninterrupted_one(
    run_data: RunData, tmp_path: Path
) -> None:
    pretrain(run_data.config(tmp_path / "whole", precision="bf16"))
    config = run_data.config(tmp_path / "halves", precision="bf16")
    with pytest.raises(Interrupted):
        pretrain(config, listener=Listener(should_stop=stop_after(5)))
    assert record_of(resume_of(tmp_path / "halves"))["config"]["precision"] == "bf16"
    same_run(tmp_path / "whole", tmp_path / "halves")


def resume_of(run_dir: Path) -> Path:
    resume(run_dir)
    return run_dir


def test_f34_resuming_twice_is_still_the_same_run(
    finished: Path, run_data: RunData, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    stopped_run(run_data, run_dir, questions=3)
    with pytest.raises(Interrupted):
        resume(run_dir, listener=Listener(should_stop=stop_after(3)))
    heard: list[str] = []
    resume(run_dir, listener=Listener(notify=heard.append))
    # Saved where it stopped: nothing is taken again.
    (said,) = (text for text in heard if text.startswith("going on"))
    assert said.endswith(" of 8")
    same_run(finished, run_dir)


def test_f34_stopped_before_the_first_update_starts_again(
    finished: Path, run_data: RunData, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    stopped_run(run_data, run_dir, questions=1)
    assert latest_checkpoint(run_dir) == (None, [])
    resume(run_dir)
    same_run(finished, run_dir)


@pytest.mark.parametrize("item", ["exp_avg", "exp_avg_sq", "step", "rng", "weights"])
def test_f34_a_state_item_that_is_lost_is_seen(
    finished: Path, run_data: RunData, tmp_path: Path, item: str
) -> None:
    """The mutation: each part of the state matters, so dropping one must not go unnoticed."""
    run_dir = tmp_path / "run"
    stopped_run(run_data, run_dir, questions=5)
    directory, _ = latest_checkpoint(run_dir)
    assert directory is not None
    state = directory / "state.safetensors"
    tensors = load_file(state)
    name = "model.layers.0.mlp.up_proj.weight"
    if item in ("exp_avg", "exp_avg_sq", "step"):
        tensors[f"{name}/{item}"] = torch.zeros_like(tensors[f"{name}/{item}"])
    elif item == "rng":
        del tensors["rng/torch"]
    else:
        shutil.copy(finished / "model.apr", directory / "model.apr")
    save_file(tensors, state)
    listing = read_json(directory / "checkpoint.json", limit_bytes=1 << 20, id="x", what="x")
    for file in listing["files"]:
        path = directory / file
        listing["files"][file] = {"size_bytes": path.stat().st_size, "sha256": sha256_file(path)}
    write_json(directory / "checkpoint.json", listing)
    with pytest.raises((AssertionError, Refusal)):
        resume_and_compare(run_dir, finished)


def test_f36_a_damaged_checkpoint_is_passed_over_loudly(
    finished: Path, run_data: RunData, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    stopped_run(run_data, run_dir, questions=6)
    newest = checkpoint_dir(run_dir, 5) / "model.apr"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    heard: list[str] = []
    resume(run_dir, listener=Listener(notify=heard.append))
    assert any("step-00000005" in text and "model.apr" in text for text in heard)
    assert record_of(run_dir)["resumes"][0]["step"] == 4
    assert (
        "going on from the checkpoint of step 4 of 8; logged after it, and taken again: 1" in heard
    )
    same_run(finished, run_dir)


def test_f36_an_unfinished_checkpoint_does_not_count(
    finished: Path, run_data: RunData, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    stopped_run(run_data, run_dir, questions=6)
    (checkpoint_dir(run_dir, 5) / "checkpoint.json").unlink()
    with (run_dir / "steps.jsonl").open("a") as log:
        log.write('{"kind": "step", "st')
    resume(run_dir)
    assert record_of(run_dir)["resumes"][0]["step"] == 4
    same_run(finished, run_dir)


def test_retention_keeps_the_latest_and_the_best(finished: Path) -> None:
    kept = sorted(path.name for path in (finished / "checkpoints").iterdir())
    assert kept == ["step-00000006", "step-00000008"]


def test_f39_target_met_needs_the_target(run_data: RunData, tmp_path: Path) -> None:
    options = {"stop_at_target": True, "learning_rate": 1e-2, "num_steps": 8}
    record = pretrain(run_data.config(tmp_path / "met", target_val_loss=6.0, **options))
    assert record["outcome"] == "target_met"
    assert record["val"]["best_loss_nats"] <= 6.0
    record = pretrain(run_data.config(tmp_path / "missed", target_val_loss=0.5, **options))
    assert record["outcome"] == "budget_exhausted"


def test_f39_early_stop_after_patience(run_data: RunData, tmp_path: Path) -> None:
    record = pretrain(run_data.config(tmp_path / "run", patience=2, min_delta=5.0))
    assert record["outcome"] == "early_stop"
    assert steps_of(tmp_path / "run")[-1]["step"] == 6


def test_f39_an_ending_that_was_killed_ends_the_same_way(run_data: RunData, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    pretrain(run_data.config(run_dir, patience=2, min_delta=5.0))
    # What a kill between the last checkpoint and the model file leaves behind.
    record = record_of(run_dir)
    (run_dir / "model.apr").unlink()
    write_json(run_dir / "run.json", record | {"outcome": "running", "model": None})
    resume(run_dir)
    assert record_of(run_dir)["outcome"] == "early_stop"
    assert steps_of(run_dir)[-1]["step"] == 6
    assert record_of(run_dir)["model"] == record["model"]


def test_f39_divergence_is_aborted_and_nothing_is_shipped(
    run_data: RunData, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    with pytest.raises(Refusal) as refused:
        pretrain(run_data.config(run_dir, learning_rate=1e30, warmup_steps=0, eval_every=8))
    assert refused.value.id == "train.non-finite"
    assert refused.value.exit_code == 5
    record = record_of(run_dir)
    assert record["outcome"] == "aborted"
    assert "train.non-finite" in record["outcome_detail"]
    assert not (run_dir / "model.apr").exists()


def test_f39_a_model_that_cannot_be_written_is_a_lost_artifact(
    run_data: RunData, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    (run_dir / "model.apr" / "in the way").mkdir(parents=True)
    with pytest.raises(IoFailed) as refused:
        pretrain(run_data.config(run_dir))
    assert refused.value.exit_code == 7
    assert record_of(run_dir)["outcome"] == "artifact_lost"


def test_a_run_is_never_written_over(finished: Path, run_data: RunData) -> None:
    before = (finished / "run.json").read_bytes()
    with pytest.raises(Refusal) as refused:
        pretrain(run_data.config(finished))
    assert refused.value.id == "run.exists"
    assert f"that run has ended (budget_exhausted); its report is {finished}" in refused.value.fix
    assert "--resume" not in refused.value.fix
    with pytest.raises(Refusal) as refused:
        resume(finished)
    assert refused.value.id == "run.finished"
    assert (finished / "run.json").read_bytes() == before


def test_f35_resume_on_other_data_is_refused(run_data: RunData, tmp_path: Path) -> None:
    copy = RunData(tmp_path / "data")
    shutil.copytree(run_data.root, copy.root)
    run_dir = tmp_path / "run"
    with pytest.raises(Interrupted):
        pretrain(copy.config(run_dir), listener=Listener(should_stop=stop_after(3)))
    shutil.rmtree(copy.train)
    shutil.copytree(copy.val, copy.train)
    with pytest.raises(Refusal) as refused:
        resume(run_dir)
    assert refused.value.id == "resume.inputs-changed"


@pytest.mark.parametrize(
    "damage",
    [
        {"config": None},
        {"config": {"seed": "x"}},
        {"inputs": {}},
        {"inputs": {"tokenizer": 1}},
        {"resumes": {}},
        {"environment": []},
        {"outcome": 7},
        {"val": None},
    ],
    ids=str,
)
def test_a_damaged_record_is_refused_by_resume(
    finished: Path, tmp_path: Path, damage: dict[str, Any]
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    record = record_of(finished) | {"outcome": "interrupted"}
    write_json(run_dir / "run.json", record | damage)
    with pytest.raises(Refusal) as refused:
        resume(run_dir)
    assert (refused.value.id, refused.value.exit_code) == ("run.record-damaged", 4)


def test_two_processes_cannot_work_on_one_run(run_data: RunData, tmp_path: Path) -> None:
    from apr.jobs.run_lock import hold_run

    run_dir = tmp_path / "run"
    with hold_run(run_dir), pytest.raises(Refusal) as refused:
        pretrain(run_data.config(run_dir))
    assert refused.value.id == "run.busy"


def test_without_held_out_shards_whole_documents_are_reserved(
    run_data: RunData, tmp_path: Path
) -> None:
    record = pretrain(run_data.config(tmp_path / "run", val_shard=None, num_steps=2))
    shards = ShardReader.open(run_data.train)
    assert record["val"]["source"] == "reserved"
    reserved = record["val"]["num_tokens"] + 1
    assert reserved >= 16 * 4 * 32 + 1
    assert reserved in shards.document_ends
    assert record["unique_tokens"] == shards.num_tokens - reserved
