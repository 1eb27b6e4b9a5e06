"""The verbs of a run as a person or a script meets them."""

import json
from pathlib import Path

import pytest
from tests.run_data import RunData

from apr.cli.main import run


@pytest.fixture(scope="module")
def finished(run_data: RunData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("cli") / "run"
    assert run(["pretrain", *run_data.flags(run_dir), "--quiet"]) == 0
    return run_dir


def answer(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """The one object on stdout."""
    return json.loads(capsys.readouterr().out)


def test_a_finished_run_tells_the_next_commands(
    run_data: RunData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pretrain", *run_data.flags(tmp_path / "run")]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("budget_exhausted: all planned steps were taken; the target")
    assert f"apr run {tmp_path / 'run' / 'model.apr'} 'def '" in captured.out
    assert run(["inspect", str(tmp_path / "run" / "model.apr")]) == 0
    assert run(["validate", str(tmp_path / "run" / "model.apr")]) == 0


def test_pretrain_prints_one_object(
    run_data: RunData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pretrain", *run_data.flags(tmp_path / "run"), "--json"]) == 0
    said = answer(capsys)
    assert {"outcome", "val", "init_loss_nats", "model", "report"} <= said.keys()


def test_run_is_greedy_by_default_and_sampling_follows_the_seed(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(finished / "model.apr")

    def text(*options: str) -> object:
        assert run(["run", model, "def ", "-n", "12", "--json", *options]) == 0
        return answer(capsys)["token_ids"]

    assert text() == text("--temperature", "0")
    sampled = ["--temperature", "1.5", "--seed"]
    assert text(*sampled, "1") == text(*sampled, "1") != text(*sampled, "2")
    assert run(["generate", model, "def ", "-n", "1", "--json"]) == 0
    said = answer(capsys)
    assert said.keys() == {"text", "prompt_token_ids", "token_ids", "stop_reason"}
    assert run(["run", model, "-n", "2", "--json"]) == 0
    assert len(answer(capsys)["prompt_token_ids"]) == 1


@pytest.mark.parametrize(
    ("arguments", "exit_code", "id"),
    [
        (["run", "nowhere.apr", "x"], 3, "files.not-found"),
        (["run", "{model}", "x", "--top-k", "3"], 2, "run.sampling"),
        # Before anything is read.
        (["run", "nowhere.apr", "x", "--temperature", "1e-320"], 2, "run.sampling"),
        (["run", "nowhere.apr", "x", "--temperature", "1", "--seed", "9" * 23], 2, "run.sampling"),
        (["run", "nowhere.apr", "x", "--seed", "-1"], 2, "run.sampling"),
        (["run", "nowhere.apr", "x", "--seed", "0"], 2, "run.sampling"),
        (["run", "nowhere.apr", "x", "--seed", "0", "--temperature", "1"], 3, "files.not-found"),
        (["run", "{model}", "x" * 9000], 2, "run.prompt-too-long"),
        (["pretrain", "--resume", "nowhere"], 3, "files.not-found"),
        (["pretrain", "--resume", "{run}"], 5, "run.finished"),
        (["pretrain", "--resume", "{run}", "--dry-run"], 2, "config.resume-with-options"),
        (["pretrain", "--resume", "{run}", "--seed", "1"], 2, "resume.another-run"),
        (["pretrain", "--dataset", "x"], 2, "config.invalid"),
        (
            [
                "pretrain",
                "--mode",
                "finetune",
                "--dataset",
                "x",
                "--tokenizer",
                "x",
                "--run-dir",
                "{new}",
            ],
            2,
            "config.init-missing",
        ),
        (
            ["pretrain", "--dataset", "x", "--tokenizer", "{tokenizer}", "--run-dir", "{new}"],
            3,
            "files.not-found",
        ),
        (
            [
                "pretrain",
                "--dataset",
                "{train}",
                "--tokenizer",
                "{tokenizer}",
                "--run-dir",
                "{new}",
                "--arch",
                "nothing",
            ],
            2,
            "config.unknown-preset",
        ),
        (
            [
                "pretrain",
                "--dataset",
                "{train}",
                "--tokenizer",
                "{tokenizer}",
                "--run-dir",
                "{new}",
                "--arch",
                "tiny",
                "--seq-length",
                "4096",
            ],
            2,
            "config.sequence-too-long",
        ),
        (
            [
                "pretrain",
                "--dataset",
                "{train}",
                "--val-shard",
                "{val}",
                "--tokenizer",
                "{tokenizer}",
                "--run-dir",
                "{new}",
                "--arch",
                "tiny",
                "--seq-length",
                "32",
                "--batch-size",
                "4",
                "--force-under-provisioned",
                "--device",
                "cuda:9",
            ],
            5,
            "config.device-unavailable",
        ),
        (["nothing"], 2, "usage"),
        (["pretrain", "--nothing"], 2, "usage"),
    ],
)
def test_every_refusal_is_one_object_with_its_exit_code(
    finished: Path,
    run_data: RunData,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    exit_code: int,
    id: str,
) -> None:
    names = {
        "{model}": finished / "model.apr",
        "{run}": finished,
        "{new}": tmp_path / "new",
        "{train}": run_data.train,
        "{val}": run_data.val,
        "{tokenizer}": run_data.tokenizer,
    }
    filled = [str(names.get(argument, argument)) for argument in arguments]
    assert run([*filled, "--json"]) == exit_code
    said = answer(capsys)
    assert said["refused"]["id"] == id
    assert said["exit_code"] == exit_code
    assert not (tmp_path / "new").exists()


def test_f04_a_flipped_byte_anywhere_in_a_model_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (finished / "model.apr").read_bytes()
    damaged = tmp_path / "damaged.apr"
    for at in [5, 45, 70, 5000, len(data) // 2, len(data) - 2]:
        damaged.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        assert run(["run", str(damaged), "x", "--json"]) == 4
        assert answer(capsys)["exit_code"] == 4
        assert run(["validate", str(damaged), "--json"]) in (4, 5)
        capsys.readouterr()


def test_no_traceback_reaches_the_user_from_control_characters(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["run", str(finished / "model.apr"), "\x1b[31m", "-n", "1"]) == 0
    assert "\x1b" not in capsys.readouterr().out
