"""Signals and kills, from outside: what a stopped process leaves, and that it goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
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
    assert "compiling" not in err
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


# A compiler that takes long over kernels from the given one on, and says when it has begun.
COMPILER = """#!/bin/sh
source=
for word; do case $word in *.cpp) source=$word;; esac; done
if [ "$source" ] && grep -q 'void *kernel(' "$source"; then
    if [ "$QUICK_KERNELS" -eq 0 ] || [ -e "$BEGUN.first" ]; then
        touch "$BEGUN"
        exec sleep 300
    fi
    touch "$BEGUN.first"
fi
exec g++ "$@"
"""


def start_compiling(
    arguments: list[str], root: Path, *, quick_kernels: int
) -> subprocess.Popen[str]:
    """A command in a process group of its own, as a terminal starts it, once its compiler works."""
    compiler, begun = root / "compiler", root / "begun"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "apr", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ
        | {
            "PYTHONPATH": ":".join(sys.path),
            "NO_COLOR": "1",
            "CXX": str(compiler),
            "QUICK_KERNELS": str(quick_kernels),
            "BEGUN": str(begun),
            "TORCHINDUCTOR_CACHE_DIR": str(root / "kernels"),
            "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS": "0",
        },
    )
    deadline_s = time.monotonic() + 240
    while not begun.exists() and time.monotonic() < deadline_s:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler is here")
@pytest.mark.parametrize(
    ("verb", "quick_kernels"), [("pretrain", 0), ("pretrain", 1), ("selftest", 1)]
)
def test_ctrl_c_while_kernels_compile_is_no_failure(
    run_data: RunData, tmp_path: Path, verb: str, quick_kernels: int
) -> None:
    """A terminal's Ctrl-C ends the compiler too, which is neither a failed check nor a bug."""
    run_dir = tmp_path / "run"
    flags = run_data.flags(run_dir)
    flags[flags.index("--no-compile")] = "--compile"
    if verb == "selftest":
        flags.remove("--force-under-provisioned")
        flags = [*flags[: flags.index("--eval-every")], *flags[flags.index("--eval-every") + 2 :]]
    process = start_compiling([verb, *flags, "--json"], tmp_path, quick_kernels=quick_kernels)
    try:
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=100)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, err
    answer = json.loads(out)
    assert answer["exit_code"] == 130
    assert "Traceback" not in err
    assert "compiled kernels are off" not in err
    assert err.count("compiling kernels, which takes up to a minute") == 1
    assert not (run_dir / "run.json").exists()
