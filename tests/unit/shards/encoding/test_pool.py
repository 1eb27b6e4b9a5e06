"""Workers that are forked from one interpreter: what dies, stalls or fails, and what is left."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.encode_processes import is_alive, nurseries, workers
from tests.tokenizer_files import tokenizer

from apr.errors import AprError, Refusal
from apr.progress import Progress
from apr.shards.encode import encode_corpus
from apr.shards.encoding.pool import run_in_processes
from apr.shards.encoding.work import Work
from apr.shards.manifest import Manifest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
NUM_ROWS = 60


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    rows = [json.dumps({"content": "hello " * (n % 37 + 1) + str(n)}) + "\n" for n in range(60)]
    path.write_text("".join(rows))
    return path


def encode(
    corpus: Path,
    *,
    before: Callable[[Work], object] = lambda _work: None,
    progress: Callable[[Progress], None] = lambda _progress: None,
    stall_s: float = 60.0,
    num_workers: int = 2,
    encoder: str = "reference",
    output: str = "out",
) -> Manifest:
    """Encode with two workers, after something was done to their work."""

    def executor(work: Work) -> None:
        before(work)
        run_in_processes(work, num_workers=num_workers, stall_s=stall_s)

    return encode_corpus(
        [corpus],
        tokenizer=tokenizer(),
        output=corpus.parent / output,
        task_bytes=500,
        cache_directory=corpus.parent / "proofs",
        encoder=encoder,  # pyright: ignore[reportArgumentType]
        executor=executor,
        progress=progress,
    )


def plant(directory: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Let every interpreter of an encoding do something when it starts."""
    lines = ["import os, sys", "if 'encode_worker' in str(sys.orig_argv):"]
    lines += [f"    {line}" for line in fault.splitlines()]
    (directory / "sitecustomize.py").write_text("\n".join(lines))
    monkeypatch.setenv("PYTHONPATH", f"{directory}:{os.environ.get('PYTHONPATH', '')}")


def once(action: Callable[[], object]) -> Callable[[Progress], None]:
    """What to do at the first report of progress of workers that are at work."""
    done: list[bool] = []

    def at(progress: Progress) -> None:
        if not done and progress.done and workers():
            done.append(True)
            action()

    return at


def gone(pids: list[int]) -> bool:
    """Whether all of them have ended, within a time that is long enough for any machine."""
    until_s = time.monotonic() + 30
    while any(map(is_alive, pids)) and time.monotonic() < until_s:
        time.sleep(0.02)
    return not any(map(is_alive, pids))


DIES = {
    "by a signal": ("os.kill(os.getpid(), 9)", "signal SIGKILL"),
    "with a code": ("os._exit(3)", "exit code 3"),
}


@pytest.mark.parametrize(("what", "how"), DIES.values(), ids=DIES)
def test_a_worker_that_dies_at_every_attempt_is_refused(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, what: str, how: str
) -> None:
    fault = f"os.register_at_fork(after_in_child=lambda: {what})"
    plant(corpus.parent, monkeypatch, fault)
    with pytest.raises(Refusal) as refused:
        encode(corpus)
    assert refused.value.id == "shards.worker-died"
    assert refused.value.found == f"a worker that ended with {how}, 2 times"
    assert "in.jsonl" in refused.value.where
    assert nurseries() == []


def test_a_worker_that_dies_once_is_replaced(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    died = corpus.parent / "died"
    fault = "def die():\n    try: os.mkdir(%r)\n    except OSError: return\n    os._exit(3)\n"
    fault = fault % str(died) + "os.register_at_fork(after_in_child=die)"
    plant(corpus.parent, monkeypatch, fault)
    assert encode(corpus).total_documents == NUM_ROWS
    assert died.exists()


@pytest.mark.parametrize(("what", "how"), DIES.values(), ids=DIES)
def test_an_interpreter_that_dies_while_it_loads_is_refused(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, what: str, how: str
) -> None:
    """As the kernel kills one that a tokenizer makes too large: when everything is imported."""
    fault = f"import gc\ngc.disable = lambda: {what}"
    plant(corpus.parent, monkeypatch, fault)
    with pytest.raises(Refusal) as refused:
        encode(corpus)
    assert refused.value.id == "shards.worker-died"
    assert refused.value.found == f"a worker that ended with {how}, 2 times"
    assert "out.partial" in refused.value.where


@pytest.mark.parametrize("num_killed", [1, 2])
def test_an_interpreter_that_dies_while_others_work_is_replaced(
    corpus: Path, num_killed: int
) -> None:
    """When it is needed again: after the death of a worker."""
    seen: list[int] = []

    def kill() -> None:
        seen.extend([*nurseries(), *workers()])
        for pid in seen[:num_killed]:
            os.kill(pid, signal.SIGKILL)

    assert encode(corpus, progress=once(kill)).total_documents == NUM_ROWS
    assert len(seen) > 1
    assert gone(seen)
    assert nurseries() == []


def test_what_loading_refuses_is_refused(corpus: Path) -> None:
    def damage(work: Work) -> None:
        (work.workplace.directory / "job.json").write_text("{}")

    with pytest.raises(Refusal) as refused:
        encode(corpus, before=damage)
    assert refused.value.id == "shards.job-damaged"
    assert refused.value.exit_code == 4
    assert nurseries() == []


def test_what_a_task_refuses_is_refused(corpus: Path) -> None:
    with pytest.raises(Refusal) as refused:
        encode(corpus, before=lambda _work: corpus.write_text(""))
    assert refused.value.id == "corpus.input-changed"
    assert nurseries() == []


@pytest.mark.parametrize(
    "fault",
    ["import gc; gc.freeze = None", "os.fork = None", "import tempfile; tempfile.mkdtemp = None"],
    ids=["loading", "forking", "working"],
)
def test_a_failure_comes_with_its_traceback(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    plant(corpus.parent, monkeypatch, fault)
    with pytest.raises(AprError, match=r"Traceback[\s\S]*'NoneType' object is not"):
        encode(corpus)
    assert nurseries() == []


def test_an_interpreter_that_never_answers_is_noticed(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(corpus.parent, monkeypatch, "import signal\nos.kill(os.getpid(), signal.SIGSTOP)")
    with pytest.raises(Refusal) as refused:
        encode(corpus, stall_s=0.5)
    assert refused.value.id == "shards.worker-stalled"
    assert nurseries() == []


THREADS = {
    "Python's own": ("threading.Thread(target=time.sleep, args=[60]).start()", "<Thread.*"),
    "of a library": ("_thread.start_new_thread(time.sleep, (60,))", "a library keeps 1 threads"),
}


@pytest.mark.parametrize(("thread", "said"), THREADS.values(), ids=THREADS)
def test_an_interpreter_that_keeps_a_thread_is_not_forked(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, thread: str, said: str
) -> None:
    if not Path("/proc/self/task").is_dir():
        pytest.skip("needs the proc filesystem of Linux")
    plant(corpus.parent, monkeypatch, f"import threading, time, _thread\n{thread}")
    with pytest.raises(AprError, match=f"AssertionError: .*{said}"):
        encode(corpus)


# A fast library that lets two ids change places, in the interpreters of an encoding alone.
WRONG = """
os.environ |= {"RAYON_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
import fastokens, numpy
class Wrong:
    def __init__(self, built):
        self.built = built
    def encode_batch_flat(self, texts):
        ids, offsets = self.built.encode_batch_flat(texts)
        return numpy.frombuffer(ids, numpy.uint32)[::-1].tobytes(), offsets
class Tokenizer:
    from_json_str = staticmethod(lambda text: Wrong(real.from_json_str(text)))
real, fastokens.Tokenizer = fastokens.Tokenizer, Tokenizer
"""


def test_an_encoder_that_differs_in_workers_is_given_up(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = encode(corpus, encoder="auto", output="right")
    plant(corpus.parent, monkeypatch, WRONG.strip())
    wrong = encode(corpus, encoder="auto", output="wrong")
    assert right.encoder is not None
    assert wrong.encoder is not None
    assert (right.encoder.name, right.encoder.proof["verdict"]) == ("fastokens", "equal")
    assert (wrong.encoder.name, wrong.encoder.proof["verdict"]) == ("tokenizers", "differs")
    assert [shard.sha256 for shard in right.shards] == [shard.sha256 for shard in wrong.shards]


def test_no_worker_holds_the_pipes_of_another(corpus: Path) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs the proc filesystem of Linux")
    held: list[list[set[str]]] = []

    def look() -> None:
        held.append([pipes(pid) for pid in [*nurseries(), *workers()]])

    encode(corpus, num_workers=3, progress=once(look))
    nursery, *each = held[0]
    assert [len(pipes) for pipes in each] == [2, 2, 2]
    assert len(set[str].union(*each)) == 6
    assert not nursery & set[str].union(*each)


def pipes(pid: int) -> set[str]:
    """The pipes and sockets that a process holds, beside what it was given to talk to people."""
    names: set[str] = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # A file that a worker at work has just closed.
            names |= {os.readlink(link)} if int(link.name) > 2 else set()
    return {name for name in names if name.startswith(("pipe:", "socket:"))}


PARENT = """
import os, signal, sys, time
from pathlib import Path
from tests.encode_processes import nurseries, workers
from tests.tokenizer_files import tokenizer
from apr.shards.encode import encode_corpus
from apr.shards.encoding.executors import make_executor
corpus, when = Path(sys.argv[1]), sys.argv[2]
is_seen = False

def kill(progress):
    global is_seen
    if not is_seen and progress.done and len(workers()) == 2:
        is_seen = True
        pids = [*nurseries(), *workers()]
        if when == "a worker is stopped":
            os.kill(pids[1], signal.SIGSTOP)
        print(*pids, flush=True)
        sys.stdin.read()

encode_corpus(
    [corpus], tokenizer=tokenizer(), output=corpus.parent / "out", task_bytes=500,
    encoder="reference", executor=make_executor(num_workers=2), progress=kill,
)
"""


@pytest.mark.parametrize("when", ["all work", "a worker is stopped"])
def test_nothing_is_left_of_a_parent_that_was_killed(corpus: Path, when: str) -> None:
    words = [sys.executable, "-c", PARENT, str(corpus), when]
    environment = os.environ | {"PYTHONPATH": ":".join([str(ROOT), *sys.path])}
    with subprocess.Popen(
        words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 3
        assert all(map(is_alive, pids))
        parent.kill()
    assert gone(pids)


def test_an_interpreter_whose_parent_was_killed_while_it_loaded_ends(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = corpus.parent / "pid"
    fault = "import gc, time\ndef load():\n"
    fault += f"    open({str(file)!r}, 'w').write(f'{{os.getpid()}}.')\n    time.sleep(0.5)\n"
    plant(corpus.parent, monkeypatch, fault + "gc.disable = load")
    words = [sys.executable, "-c", PARENT, str(corpus), "never"]
    environment = os.environ | {"PYTHONPATH": ":".join([str(corpus.parent), str(ROOT), *sys.path])}
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE) as parent:
        while not (file.exists() and file.read_text().endswith(".")):
            time.sleep(0.01)
        parent.kill()
    assert gone([int(file.read_text().rstrip("."))])
