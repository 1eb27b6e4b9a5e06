"""The interpreter that `encode-corpus` starts before anything else: when, how often, until when."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.encode_processes import is_alive, nurseries, workers
from tests.tokenizer_files import tokenizer

LINE = "tokenize encode-corpus --corpus in.jsonl --tokenizer tok -o out --encoder reference --json"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A corpus, a tokenizer, and a list of the interpreters that are started."""
    rows = [json.dumps({"content": f"hello {n}"}) + "\n" for n in range(400)]
    (tmp_path / "in.jsonl").write_text("".join(rows))
    tokenizer().save(tmp_path / "tok")
    plant(tmp_path, slow_s=0.0)
    return tmp_path


def plant(here: Path, *, slow_s: float) -> None:
    """Note every interpreter that is started for workers, and let it take so long to load."""
    (here / "sitecustomize.py").write_text(
        "import gc, os, sys, time\n"
        "if 'encode_worker' in str(sys.orig_argv):\n"
        f"    open({str(here / 'started')!r}, 'a').write(f'{{os.getpid()}}\\n')\n"
        f"    gc.disable = lambda: time.sleep({slow_s})\n"
    )


def start(here: Path, line: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": ":".join([str(here), *sys.path])}
    return subprocess.Popen(
        [sys.executable, "-m", "apr", *line.split()],
        cwd=here,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def started(here: Path) -> list[int]:
    file = here / "started"
    return [int(pid) for pid in file.read_text().split()] if file.exists() else []


@pytest.mark.parametrize(
    ("options", "count"),
    [("--num-workers 2", 1), ("--num-workers 1", 0), ("--num-workers 2 --estimate-only", 0)],
)
def test_one_interpreter_is_started_for_several_workers(
    here: Path, options: str, count: int
) -> None:
    with start(here, f"{LINE} {options}") as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert json.loads(out)
    assert len(started(here)) == count
    assert not any(map(is_alive, started(here)))


@pytest.mark.parametrize("slow_s", [0.0, 60.0], ids=["loaded", "still loading"])
def test_a_refused_command_leaves_none_and_says_no_more(here: Path, slow_s: float) -> None:
    plant(here, slow_s=slow_s)
    with start(here, f"{LINE} --num-workers 2 --shard-tokens 0") as process:
        process.wait()
        left = [pid for pid in started(here) if is_alive(pid)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        out, err = process.communicate()
    assert left == []
    assert (json.loads(out)["refused"]["id"], process.returncode) == ("shards.shard-tokens", 2)
    assert "Traceback" not in err
    assert len(started(here)) == 1


def test_ctrl_c_ends_the_command_and_all_of_its_processes(here: Path) -> None:
    rows = (here / "in.jsonl").read_bytes()
    (here / "in.jsonl").write_bytes(rows * 4000)
    with start(here, f"{LINE} --num-workers 2") as process:
        while process.poll() is None and len(workers(process.pid)) < 2:
            time.sleep(0.02)
        seen = [*nurseries(process.pid), *workers(process.pid)]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130, err
    assert json.loads(out)["interrupted"]["resume_command"].startswith("apr tokenize")
    assert len(seen) == 3
    assert not any(map(is_alive, seen))
    assert "Traceback" not in err
