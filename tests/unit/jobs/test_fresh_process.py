"""A fresh process: its answer, its exception and its progress arrive, and it outlives nobody."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apr.errors import DamagedFile, Refusal
from apr.jobs.fresh_process import ProcessDied, in_fresh_process
from apr.progress import Progress, Report

REFUSAL = DamagedFile(
    "planted.fault", "here", found="1", expected="2", fix="none", upstream_id="GATE-1"
)


def refuse() -> None:
    raise REFUSAL


def fail() -> None:
    raise ValueError("of its own")


class Unpicklable(Exception):
    def __init__(self, *, keyword: str) -> None:
        super().__init__(keyword)


def fail_unpicklably() -> None:
    raise Unpicklable(keyword="needed")


def counted(up_to: int, *, progress: Report) -> int:
    for at in range(up_to):
        progress(Progress("counting", at, up_to, "numbers"))
    return up_to


def loud() -> str:
    print("a library says something")
    os.write(1, b"and so does one in C\n")
    return "answer"


def answered_unpicklably() -> object:
    return lambda: None


def large(num_bytes: int, data: bytes) -> bytes:
    assert len(data) == num_bytes
    return data


def identity() -> tuple[int, int]:
    return os.getpid(), os.getsid(0)


def test_another_process_answers() -> None:
    process, session = in_fresh_process(identity)
    assert process != os.getpid()
    # A session of its own: Ctrl-C at the terminal does not reach it.
    assert session == process


def test_large_questions_and_answers() -> None:
    data = os.urandom(3 << 20)
    assert in_fresh_process(large, len(data), data=data) == data


def test_progress_arrives_in_order() -> None:
    heard: list[Progress] = []
    assert in_fresh_process(counted, 3, progress=heard.append) == 3
    assert heard == [Progress("counting", at, 3, "numbers") for at in range(3)]


def test_a_refusal_arrives_whole() -> None:
    with pytest.raises(DamagedFile) as refused:
        in_fresh_process(refuse)
    assert refused.value is not REFUSAL
    assert refused.value.as_dict() == REFUSAL.as_dict()
    assert refused.value.exit_code == 4


def test_an_exception_arrives_with_the_place_it_was_raised() -> None:
    with pytest.raises(ValueError, match="of its own") as raised:
        in_fresh_process(fail)
    assert ", in fail" in "".join(raised.value.__notes__)


def test_an_exception_that_cannot_travel_arrives_as_text() -> None:
    with pytest.raises(RuntimeError, match=r"Unpicklable\('needed'\)"):
        in_fresh_process(fail_unpicklably)


def test_an_answer_that_cannot_travel_is_an_exception() -> None:
    with pytest.raises(Exception, match="pickle"):
        in_fresh_process(answered_unpicklably)


def test_what_is_printed_there_is_not_on_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    assert in_fresh_process(loud) == "answer"
    said = capfd.readouterr()
    assert said.out == ""
    assert "a library says something" in said.err
    assert "and so does one in C" in said.err


@pytest.mark.parametrize(
    ("function", "argument", "found"),
    [(signal.raise_signal, signal.SIGKILL, "signal SIGKILL"), (os._exit, 3, "status 3")],
)
def test_one_that_dies_is_a_refusal(function: object, argument: int, found: str) -> None:
    with pytest.raises(ProcessDied) as refused:
        in_fresh_process(function, argument)  # type: ignore[arg-type]
    assert refused.value.id == "proof.process-died"
    assert found in refused.value.found
    assert "memory" in refused.value.fix
    assert isinstance(refused.value, Refusal)


def sleep_beside(marker: str) -> None:
    """Say who this is, and sleep in a fresh process of one's own."""
    Path(marker).write_text(str(os.getpid()))
    in_fresh_process(sleep_for_long, f"{marker}.inner")


def sleep_for_long(marker: str) -> None:
    Path(marker).write_text(str(os.getpid()))
    time.sleep(600)


PARENT = """
import sys
from tests.unit.jobs.test_fresh_process import sleep_beside
from apr.jobs.fresh_process import in_fresh_process
in_fresh_process(sleep_beside, sys.argv[1])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_the_parent_ends_no_process_is_left(tmp_path: Path, number: signal.Signals) -> None:
    """Also the process of a process, which asks transformers."""
    outer, inner = tmp_path / "pid", tmp_path / "pid.inner"
    environment = os.environ | {"PYTHONPATH": ":".join([str(Path.cwd()), *sys.path])}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(outer)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: inner.exists() and inner.read_text() != "")
    children = [int(file.read_text()) for file in (outer, inner)]
    assert all(map(is_alive, children))
    # As a terminal does it: to the parent and whatever is in its group.
    os.killpg(parent.pid, number)
    _, said = parent.communicate(timeout=60)
    assert parent.returncode != 0
    wait_until(lambda: not any(map(is_alive, children)))
    # At most the parent's own: no child says how it ended.
    assert said.count("Traceback") == (number == signal.SIGINT)


def wait_until(condition: object) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def is_alive(process: int) -> bool:
    """Whether a process runs; one that was not waited for yet does not."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


SCRIPT = """
from apr.jobs.fresh_process import in_fresh_process
print(in_fresh_process(len, "three"), "once")
"""


def test_a_script_needs_no_main_guard(tmp_path: Path) -> None:
    """multiprocessing would run the user's script again in the process."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("5 once\n", "")


def test_modules_of_the_current_directory_are_not_picked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pickle.py").write_text("raise SystemExit('picked up')")
    monkeypatch.chdir(tmp_path)
    assert in_fresh_process(len, "three") == 5


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({"APR_PLANTED": "new"}, "new"), ({"APR_PLANTED": None}, None), ({}, "old"), (None, "old")],
)
def test_its_environment_is_changed_before_it_is_asked(
    environment: dict[str, str | None] | None,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("APR_PLANTED", "old")
    assert in_fresh_process(os.getenv, "APR_PLANTED", environment=environment) == expected
    assert os.environ["APR_PLANTED"] == "old"
