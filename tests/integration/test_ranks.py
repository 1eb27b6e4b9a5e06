"""Whole runs on several ranks: the run of one process, whoever shares it and however it stops."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.run_data import RunData, make_sources
from tests.warm import Ended, Warm

from apr.files import sha256_file

pytestmark = pytest.mark.slow

LAYOUTS = [("ddp", 2, 2), ("ddp", 4, 1), ("fsdp", 2, 2), ("fsdp", 4, 1)]


def arguments(ranks_data: RunData, run_dir: Path, *more: str) -> list[str]:
    return ["pretrain", *ranks_data.flags(run_dir), "--checkpoint-every", "2", "--quiet", *more]


def train(ranks: Warm, world_size: int, arguments: list[str]) -> list[Ended]:
    ended = ranks.run(arguments, world_size=world_size)
    assert [each.returncode for each in ended] == [0] * world_size, ended
    # The first one answers, the others say nothing at all.
    assert [bool(each.out) for each in ended] == [True] + [False] * (world_size - 1)
    assert not any(each.err for each in ended), ended
    return ended


def log(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    lines = (run_dir / "steps.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] == kind]


def require_same_run(run_dir: Path, alone: Path) -> None:
    """The losses of the same rows, in fp32, added up in another order."""
    for kind in ("step", "val"):
        found, expected = log(run_dir, kind), log(alone, kind)
        assert [line["step"] for line in found] == [line["step"] for line in expected]
        for one, other in zip(found, expected, strict=True):
            assert one["loss_nats"] == pytest.approx(other["loss_nats"], abs=2e-6)
    assert [line["tokens"] for line in log(run_dir, "step")] == [
        line["tokens"] for line in log(alone, "step")
    ]
    found, expected = (json.loads((each / "run.json").read_text()) for each in (run_dir, alone))
    for key in ("outcome", "tokens_seen", "tokens_by_source", "epochs_over_data", "architecture"):
        assert found[key] == expected[key]
    assert found["val"]["set_sha256"] == expected["val"]["set_sha256"]
    # Before step 1 the weights are the same bits, and so is what they lose.
    assert found["init_loss_nats"] == expected["init_loss_nats"]


@pytest.fixture(scope="module")
def alone(ranks: Warm, ranks_data: RunData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    train(ranks, 1, arguments(ranks_data, run_dir, "--grad-accum", "4"))
    return run_dir


@pytest.mark.parametrize("there", ["nothing", "another record", "the same"])
def test_a_rank_that_does_not_see_the_run_directory_ends_all(
    ranks: Warm, tmp_path: Path, there: str
) -> None:
    """As on machines that share no file system: one path, and not the same behind it."""
    shared, other = tmp_path / "shared", tmp_path / "other"
    for directory in (shared, other):
        directory.mkdir()
    if there == "another record":
        (other / "run.json").write_text("of another run")
    seen_by_last = shared if there == "the same" else other
    ended = ranks.call(
        "tests.ranks.checks:share_a_directory",
        world_size=3,
        directories=[str(shared), str(shared), str(seen_by_last)],
    )
    answers = [each.answer for each in ended]
    if there == "the same":
        assert answers == [None] * 3
        return
    assert {answer["id"] for answer in answers} == {"ranks.no-shared-directory"}
    assert all("rank 2 of 3 does not see" in answer["found"] for answer in answers)


def test_a_run_without_a_shared_directory_ends_before_its_first_step(
    ranks: Warm, ranks_data: RunData, tmp_path: Path
) -> None:
    ended = ranks.run(arguments(ranks_data, tmp_path / "run-%RANK%"), world_size=2)
    assert [each.returncode for each in ended] == [5, 5], ended
    assert "refused[ranks.no-shared-directory]" in ended[0].err
    record = json.loads((tmp_path / "run-0" / "run.json").read_text())
    assert record["outcome"] == "aborted"
    assert record["outcome_detail"].startswith("ranks.no-shared-directory")
    assert log(tmp_path / "run-0", "step") == []
    assert not (tmp_path / "run-1" / "run.json").exists()


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        # No part of any state, so that only what each was told can be compared.
        ("--spike-factor", "2%RANK%", "the option spike_factor"),
        ("--batch-size", "4%RANK%0", "the option batch_size"),
        ("--dataset", "other-%RANK%", "the training shards"),
        ("--dataset", "same-%RANK%", None),
    ],
)
def test_f29_ranks_that_were_told_different_things_do_not_train(
    ranks: Warm,
    run_data: RunData,
    tmp_path: Path,
    option: str,
    value: str,
    named: str | None,
) -> None:
    told = arguments(run_data, tmp_path / "run", "--data-parallel", "fsdp")
    if option == "--dataset":
        small, large = make_sources(run_data, tmp_path / "sources")
        (tmp_path / "other-0").symlink_to(small)
        (tmp_path / "other-1").symlink_to(large)
        shutil.copytree(small, tmp_path / "same-0")
        shutil.copytree(small, tmp_path / "same-1")
        value = str(tmp_path / value)
    if option in told:
        told[told.index(option) + 1] = value
    else:
        told += [option, value]
    ended = ranks.run(told, world_size=2)
    if named is None:
        assert [each.returncode for each in ended] == [0, 0], ended
        return
    assert [each.returncode for each in ended] == [5, 5], ended
    assert "refused[ranks.differ]" in ended[0].err
    assert named in ended[0].err


@pytest.mark.parametrize(("kind", "world_size", "grad_accum"), LAYOUTS)
def test_any_number_of_ranks_train_the_same_run(
    ranks: Warm,
    ranks_data: RunData,
    tmp_path: Path,
    alone: Path,
    kind: str,
    world_size: int,
    grad_accum: int,
) -> None:
    run_dir = tmp_path / "run"
    more = ("--data-parallel", kind, "--grad-accum", str(grad_accum))
    train(ranks, world_size, arguments(ranks_data, run_dir, *more))
    require_same_run(run_dir, alone)
    environment = json.loads((run_dir / "run.json").read_text())["environment"]
    assert (environment["ranks"], environment["data_parallel"]) == (world_size, kind)


def test_an_initial_model_that_is_dealt_out_trains_the_same_run(
    ranks: Warm, ranks_data: RunData, tmp_path: Path, alone: Path
) -> None:
    def words(run_dir: Path, *more: str) -> list[str]:
        flags = arguments(ranks_data, run_dir, "--init", str(alone / "model.apr"), *more)
        at = flags.index("--arch")
        return flags[:at] + flags[at + 2 :]

    train(ranks, 1, words(tmp_path / "one", "--grad-accum", "4"))
    train(ranks, 2, words(tmp_path / "two", "--grad-accum", "2", "--data-parallel", "fsdp"))
    require_same_run(tmp_path / "two", tmp_path / "one")


def test_a_dry_run_of_a_dealt_out_model_says_how_fast_it_would_be(
    ranks: Warm, ranks_data: RunData, tmp_path: Path
) -> None:
    more = ("--data-parallel", "fsdp", "--dry-run", "--json")
    first, second = ranks.run(arguments(ranks_data, tmp_path / "run", *more), world_size=2)
    assert (first.returncode, second.returncode) == (0, 0), (first, second)
    answer = json.loads(first.out)
    assert answer["may_start"]
    assert answer["time"]["tokens_per_s"] > 0, answer["time"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_saved_on_two_ranks_a_run_goes_on_with_one_and_with_four(
    ranks: Warm, ranks_data: RunData, tmp_path: Path, alone: Path, kind: str
) -> None:
    run_dir = tmp_path / "run"
    ended = ranks.call(
        "tests.ranks.checks:stopped_run",
        world_size=2,
        root=str(ranks_data.root),
        run_dir=str(run_dir),
        kind=kind,
        after=3,
    )
    said = "interrupted after step 3 of 8; the run is saved"
    assert [each.answer for each in ended] == [said, said]
    shares = sorted(path.name for path in (run_dir / "checkpoints/step-00000003").glob("state*"))
    names = [f"state-0000{rank}-of-00002.safetensors" for rank in (1, 2)] + ["state.json"]
    assert shares == (names if kind == "fsdp" else ["state.json", "state.safetensors"])
    stopped = tmp_path / "stopped"
    shutil.copytree(run_dir, stopped)
    for world_size, grad_accum in ((1, 4), (4, 1)):
        shutil.rmtree(run_dir)
        shutil.copytree(stopped, run_dir)
        train(ranks, world_size, ["pretrain", "--resume", str(run_dir), "--quiet"])
        require_same_run(run_dir, alone)
        (resumed,) = json.loads((run_dir / "run.json").read_text())["resumes"]
        assert resumed["environment_changed"]["ranks"] == world_size
        # Rows of one forward pass stay as many.
        assert resumed["config_changed"]["grad_accum"] == [2, grad_accum]


@pytest.mark.parametrize("at_call", [3, None])
def test_no_checkpoint_is_written_of_ranks_that_have_drifted_apart(
    ranks: Warm, ranks_data: RunData, tmp_path: Path, at_call: int | None
) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    ended = ranks.call(
        "tests.ranks.checks:drifting_run",
        world_size=2,
        root=str(ranks_data.root),
        run_dir=str(run_dir),
        at_call=at_call,
    )
    saved = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    if at_call is None:
        assert [each.answer for each in ended] == [None, None]
        assert saved == ["step-00000006", "step-00000008"]
        return
    for each in ended:
        assert each.answer["id"] == "ranks.differ"
        assert each.answer["where"] == "step 4, the parameters"
    assert saved == ["step-00000002"]


def test_a_large_model_is_gathered_block_by_block(ranks: Warm, ranks_data: RunData) -> None:
    def step(world_size: int, kind: str) -> dict[str, Any]:
        ended = ranks.call(
            "tests.ranks.checks:step_of_unequal_rows",
            world_size=world_size,
            root=str(ranks_data.root),
            kind=kind,
            counted=[3, 16, 1, 9],
            num_micro_batches=2,
        )
        return ended[0].answer

    alone, dealt_out = step(1, "auto"), step(2, "fsdp by block")
    assert dealt_out["num_tokens"] == alone["num_tokens"] == 29
    for name in ("loss_nats", "grad_norm", "weights"):
        assert dealt_out[name] == pytest.approx(alone[name], abs=1e-5), name


@pytest.mark.parametrize("damage", ["missing", "of another step", "twice"])
def test_a_share_that_is_not_its_own_is_no_checkpoint(
    ranks: Warm, ranks_data: RunData, tmp_path: Path, damage: str
) -> None:
    """Beyond the hashes, for a list that somebody has written again."""
    run_dir = tmp_path / "run"
    more = ("--data-parallel", "fsdp", "--num-steps", "4", "--schedule", "constant")
    train(ranks, 2, arguments(ranks_data, run_dir, *more))
    checkpoint = run_dir / "checkpoints" / "step-00000004"
    first, second = (checkpoint / f"state-0000{n}-of-00002.safetensors" for n in (1, 2))
    if damage == "missing":
        second.unlink()
    elif damage == "twice":
        shutil.copy(first, second)
    else:
        shutil.copy(run_dir / "checkpoints" / "step-00000002" / second.name, second)
    if damage != "of another step":
        listing = json.loads((checkpoint / "checkpoint.json").read_text())
        listing["files"] = {
            each.name: {"size_bytes": each.stat().st_size, "sha256": sha256_file(each)}
            for each in checkpoint.iterdir()
            if each.name != "checkpoint.json"
        }
        (checkpoint / "checkpoint.json").write_text(json.dumps(listing))
    (ended,) = ranks.run(["pretrain", "--resume", str(run_dir), "--num-steps", "6"], world_size=1)
    if damage == "of another step":
        assert "passed over a damaged checkpoint: step-00000004" in ended.err
    else:
        assert "refused[checkpoint.damaged]" in ended.err, ended.err


def test_under_torchrun_a_signal_saves_and_one_process_goes_on(
    ranks: Warm, ranks_data: RunData, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    flags = arguments(ranks_data, run_dir, "--num-steps", "100000", "--eval-every", "100000")
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "apr"]
        + [flag for flag in flags if flag != "--quiet"],
        env=os.environ | {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline_s = time.monotonic() + 120
    while not (run_dir / "checkpoints").is_dir() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert not out
    # Once, although both were told.
    assert len(re.findall("the run is saved", err)) == 1, err
    assert err.count("continue: apr pretrain --resume") == 1, err
    record = json.loads((run_dir / "run.json").read_text())
    assert record["outcome"] == "interrupted"


@pytest.mark.parametrize(
    ("more", "id"),
    [
        (("--batch-size", "5"), "config.batch-not-divisible"),
        (("--device", "cuda:0"), "config.ranks-share-a-device"),
        (("--seq-length", "2049"), "config.sequence-too-long"),
    ],
)
def test_what_all_ranks_refuse_is_said_once(
    ranks: Warm, ranks_data: RunData, tmp_path: Path, more: tuple[str, ...], id: str
) -> None:
    ended = ranks.run(arguments(ranks_data, tmp_path / "run", *more), world_size=2)
    assert ended[0].returncode == ended[1].returncode != 0
    assert f"refused[{id}" in ended[0].err
    assert (ended[1].out, ended[1].err) == ("", "")
    assert not (tmp_path / "run" / "run.json").exists()


def test_what_one_rank_alone_refuses_is_said_by_that_one(
    ranks: Warm, ranks_data: RunData, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer-0").symlink_to(ranks_data.tokenizer)
    words = arguments(ranks_data, tmp_path / "run")
    words[words.index("--tokenizer") + 1] = str(tmp_path / "tokenizer-%RANK%")
    ended = ranks.run(words, world_size=2)
    assert "refused[files.not-found] rank 1: " in ended[1].err
    assert ended[1].returncode == 3
    assert ended[0].returncode == 5
    assert "refused[ranks.lost]" in ended[0].err


def test_one_process_has_nothing_to_share(ranks_data: RunData, tmp_path: Path, ranks: Warm) -> None:
    (ended,) = ranks.run(
        arguments(ranks_data, tmp_path / "run", "--data-parallel", "fsdp"), world_size=1
    )
    assert ended.returncode == 2
    assert "refused[config.without-effect] --data-parallel" in ended.err
