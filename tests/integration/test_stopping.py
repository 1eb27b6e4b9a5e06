"""Signals and kills, from outside: what a stopped process leaves, and that it goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.integration.test_pretrain import record_of, same_run
from tests.run_data import RunData

from apr.jobs.pretrain import pretrain

pytestmark = pytest.mark.slow

STEPS = 8


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "apr", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"NO_COLOR": "1"},
    )


def wait_for_steps(run_dir: Path, process: subprocess.Popen[str], num_lines: int) -> None:
    """Until the log holds so many lines."""
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s:
        log = run_dir / "steps.jsonl"
        if log.exists() and log.read_bytes().count(b"\n") >= num_lines:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    pytest.fail("the run took no step")


def long_flags(run_data: RunData, run_dir: Path) -> list[str]:
    """A run long enough to be caught, whose end nobody waits for."""
    flags = run_data.flags(run_dir)
    flags[flags.index("--num-steps") + 1] = "100000"
    return flags


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_names_the_command_that_continues(
    run_data: RunData, tmp_path: Path, number: signal.Signals
) -> None:
    run_dir = tmp_path / "run"
    process = start(["pretrain", *long_flags(run_data, run_dir), "--json"])
    wait_for_steps(run_dir, process, 10)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    answer = json.loads(out)
    assert answer["exit_code"] == 130
    assert answer["interrupted"]["resume_command"] == f"apr pretrain --resume {run_dir}"
    assert "Traceback" not in err
    record = record_of(run_dir)
    assert record["outcome"] == "interrupted"
    last = max(int(path.name[5:]) for path in (run_dir / "checkpoints").iterdir())
    assert record["outcome_detail"] == f"stopped after step {last}"


def test_f34_a_killed_run_stays_running_and_resumes_to_the_same_bits(
    run_data: RunData, tmp_path: Path
) -> None:
    undisturbed, run_dir = tmp_path / "undisturbed", tmp_path / "run"
    pretrain(run_data.config(undisturbed, stop_at_target=True, eval_tokens=None))
    process = start(["pretrain", *run_data.flags(run_dir)])
    wait_for_steps(run_dir, process, 6)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed_in_time = record_of(run_dir)["outcome"] == "running"
    if not killed_in_time:
        pytest.skip("the run had ended before the kill arrived")
    resumed = start(["pretrain", "--resume", str(run_dir), "--json", "--quiet"])
    out, err = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, err
    assert err == ""
    assert json.loads(out)["outcome"] == "budget_exhausted"
    same_run(undisturbed, run_dir)


def test_f36_a_full_disk_is_a_lost_artifact_and_leaves_nothing_half_written(
    run_data: RunData, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    # No file may grow beyond this: the log and the record fit, a checkpoint does not.
    limited = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from apr.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, "pretrain", *run_data.flags(run_dir), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert json.loads(done.stdout)["refused"]["id"] == "files.io-failed"
    assert record_of(run_dir)["outcome"] == "artifact_lost"
    assert list((run_dir / "checkpoints").iterdir()) == []
    assert not (run_dir / "model.apr").exists()
