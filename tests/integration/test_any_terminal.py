"""Streams, encodings, names and signals that a command meets outside of tests."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.corpus_files import program, write_jsonl
from tests.tokenizer_files import tokenizer

pytestmark = pytest.mark.slow

ASCII_ONLY = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "a.jsonl", [{"content": program(number)} for number in range(9)])
    tokenizer().save(tmp_path / "tok")
    return tmp_path


def shell(
    here: Path, line: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which `apr` is the command."""
    apr = shlex.join([sys.executable, "-m", "apr"])
    script = f'apr() {{ {apr} "$@"; }}; {line}'
    variables = os.environ | {"PYTHONPATH": ":".join(sys.path)} | (environment or {})
    words = ["bash", "-c", script]
    return subprocess.run(words, cwd=here, env=variables, capture_output=True, timeout=120)


def refused(answer: subprocess.CompletedProcess[bytes]) -> str:
    assert b"Traceback" not in answer.stderr
    (line,) = answer.stdout.decode("utf-8").splitlines()
    return json.loads(line)["refused"]["where"]


@pytest.mark.parametrize("environment", [{}, ASCII_ONLY, {"PYTHONIOENCODING": "latin-1"}])
def test_a_name_of_any_bytes_is_one_object_of_utf_8(
    here: Path, environment: dict[str, str]
) -> None:
    answer = shell(here, r"apr tokenize verify $'no\xff\xc3\xa9' --json", environment)
    assert answer.returncode == 3
    assert refused(answer).startswith("no\\xff")
    answer = shell(here, "apr tokenize verify $'no\\xe6\\x97\\xa5' --json", environment)
    assert answer.returncode == 3
    assert refused(answer).startswith("no")
    answer = shell(here, r"apr tokenize verify $'no\xff\xe6\x97\xa5'", environment)
    assert answer.returncode == 3
    assert answer.stderr.startswith(b"refused[files.not-found] no")


def test_a_tokenizer_of_any_name_is_recorded(here: Path) -> None:
    encode = r"apr tokenize encode-corpus --corpus a.jsonl --encoder reference -o $'out\xff'"
    answer = shell(here, rf"mv tok $'tok\xff' && {encode} --tokenizer $'tok\xff' --json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["output"] == "out\\xff"
    answer = shell(here, r"apr tokenize verify $'out\xff'")
    assert answer.returncode == 0, answer.stderr


def test_the_next_command_can_be_pasted_whatever_the_name(here: Path) -> None:
    answer = shell(here, r"apr corpus dedup a.jsonl --no-near -o $'l\x1b[31m\n\'\\\xff'")
    assert answer.returncode == 0, answer.stderr
    assert b"\x1b" not in answer.stdout
    command = answer.stdout.decode().splitlines()[-1].strip()
    again = shell(here, f"{command} --encoder reference --quiet")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("line", "exit_code"),
    [
        ("apr corpus split a.jsonl --group file --val-fraction 0.4 -o out {} > /dev/full", 7),
        ("apr corpus split nowhere -o out {} > /dev/full", 3),
        ("apr corpus split {} > /dev/full", 2),
        ("apr corpus split a.jsonl --group file --val-fraction 0.4 -o out {} >&-", 7),
        ("apr corpus split a.jsonl --group file --val-fraction 0.4 -o out {} >&- 2>&-", 7),
        ("apr corpus split a.jsonl --group file --val-fraction 0.4 -o out {} 2>&-", 0),
        ("apr run --help {} >&-", 7),
        ("apr run --help {} > /dev/full", 7),
        ("apr > /dev/full", 7),
        ("apr corpus split nowhere -o out {} >&-", 3),
        ("apr corpus split nowhere -o out {} 2>&-", 3),
        ("apr corpus split nowhere -o out {} <&- >&- 2>&-", 3),
        ("apr corpus split nowhere -o out {} | true; exit ${{PIPESTATUS[0]}}", 3),
    ],
)
@pytest.mark.parametrize("json_option", ["", "--json"])
def test_a_stream_that_takes_nothing_changes_no_other_ending(
    here: Path, line: str, exit_code: int, json_option: str
) -> None:
    answer = shell(here, line.format(json_option))
    assert answer.returncode == exit_code
    assert b"Traceback" not in answer.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_any_signal_to_stop_cleans_up_and_is_one_object(here: Path, number: signal.Signals) -> None:
    rows = ({"content": program(number), "repo": f"r{number % 9}"} for number in range(60_000))
    write_jsonl(here / "big.jsonl", rows)
    before = sorted(os.listdir(here))
    words = ["corpus", "split", "big.jsonl", "--val-fraction", "0.3", "-o", "out", "--json"]
    # It must not end before the signal comes, however busy the machine is.
    process = subprocess.Popen(
        ["nice", "-n", "19", sys.executable, "-m", "apr", *words],
        cwd=here,
        # What ignores hang-ups, as nohup does, hands that on to its children.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
        env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline_s = time.monotonic() + 60
    while not [*here.glob(".out.*/held-out/*")] and time.monotonic() < deadline_s:
        time.sleep(0.005)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["exit_code"] == 130
    assert sorted(os.listdir(here)) == before
