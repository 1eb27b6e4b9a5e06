"""F17: preparation dies, hangs or resumes into a mixture.

Whatever is killed, and whenever, running the same command again gives the bytes of a run that
nobody disturbed. A changed input, tokenizer or setting invalidates finished work instead of
mixing with it, and so does a damaged part.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.encode_processes import is_alive, nurseries, workers
from tests.tokenizer_files import set_in, tokenizer

from apr.errors import Refusal
from apr.files import sha256_file
from apr.progress import Progress
from apr.shards.encode import encode_corpus
from apr.shards.encoding.executors import make_executor
from apr.shards.encoding.pool import run_in_processes
from apr.shards.encoding.work import Work
from apr.shards.reader import ShardReader

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "encode_script.py"
NUM_DOCUMENTS = 60
OPTIONS: dict[str, Any] = {"task_bytes": 1500, "shard_tokens": 700, "encoder": "reference"}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus"
    path.mkdir()
    rng = random.Random(5)
    rows = ["hello " * rng.randint(1, 60) + str(number) for number in range(NUM_DOCUMENTS)]
    (path / "rows.jsonl").write_text("".join(json.dumps({"content": row}) + "\n" for row in rows))
    for number in range(20):
        (path / f"{number}.py").write_text(f"x = {number}\n" * rng.randint(1, 40))
    (path / "bad.py").write_bytes(b"\xff")
    tokenizer().save(tmp_path / "tok")
    return path


def run(corpus: Path, output: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    words = [SCRIPT, corpus, corpus.parent / "tok", output, json.dumps(OPTIONS | options)]
    environment = os.environ | {"PYTHONPATH": ":".join([str(SCRIPT.parents[1]), *sys.path])}
    return subprocess.run(
        [sys.executable, *map(str, words)], env=environment, capture_output=True, text=True
    )


def encode(corpus: Path, output: Path, **options: Any) -> str:
    """The manifest hash of an encoding in this process."""
    encode_corpus([corpus], tokenizer=tokenizer(), output=output, **(OPTIONS | options))
    return sha256_file(output / "manifest.json")


@pytest.fixture
def undisturbed(corpus: Path) -> str:
    return encode(corpus, corpus.parent / "undisturbed")


def test_killed_at_any_point_and_run_again_the_bytes_are_the_same(
    corpus: Path, undisturbed: str
) -> None:
    output = corpus.parent / "out"
    whole = run(corpus, corpus.parent / "counted")
    assert whole.returncode == 0, whole.stderr
    num_reports = int(whole.stdout)
    assert num_reports > 40
    resumed = 0
    for kill_at in sorted(random.Random(7).sample(range(1, num_reports + 1), 20)):
        killed = run(corpus, output, kill_at=kill_at)
        assert killed.returncode == -signal.SIGKILL
        assert not (output / "manifest.json").exists()
        assert encode(corpus, output) == undisturbed
        resumed += json.loads((output / "encode.json").read_text())["num_tasks_resumed"]
        assert not output.with_name("out.partial").exists()
        for file in output.iterdir():
            file.unlink()
        output.rmdir()
    assert resumed > 60


@pytest.mark.parametrize("kill_at", [2, 15, 30])
def test_a_killed_parent_of_workers_can_be_run_again(
    corpus: Path, undisturbed: str, kill_at: int
) -> None:
    output = corpus.parent / "out"
    assert run(corpus, output, kill_at=kill_at, num_workers=2).returncode == -signal.SIGKILL
    again = run(corpus, output, num_workers=2)
    assert again.returncode == 0, again.stderr
    assert sha256_file(output / "manifest.json") == undisturbed


def test_a_killed_worker_is_replaced(corpus: Path, undisturbed: str) -> None:
    output = corpus.parent / "out"
    done = run(corpus, output, kill_worker_at=3, num_workers=2)
    assert done.returncode == 0, done.stderr
    assert sha256_file(output / "manifest.json") == undisturbed


def interrupted(corpus: Path, output: Path, *, after: int = 30, **options: Any) -> Path:
    """An encoding that a signal stopped on the way; return where its parts lie."""
    seen = 0

    def stop(_progress: Progress) -> None:
        nonlocal seen
        seen += 1
        if seen == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(corpus, output, progress=stop, **options)
    parts = output.with_name(f"{output.name}.partial") / "parts"
    assert sum(1 for _ in parts.glob("*/receipt.json")) > 5
    return parts


def num_resumed(output: Path) -> int:
    return json.loads((output / "encode.json").read_text())["num_tasks_resumed"]


def test_what_was_finished_is_not_done_again(corpus: Path, undisturbed: str) -> None:
    output = corpus.parent / "out"
    finished = sum(1 for _ in interrupted(corpus, output).glob("*/receipt.json"))
    assert encode(corpus, output) == undisturbed
    assert num_resumed(output) == finished


@pytest.mark.parametrize(
    "name", ["tokens.bin", "documents.idx", "documents.jsonl.zst", "counts.zst", "receipt.json"]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "lose"])
def test_a_damaged_part_is_made_anew(
    corpus: Path, undisturbed: str, name: str, damage: str
) -> None:
    output = corpus.parent / "out"
    parts = interrupted(corpus, output)
    finished = sorted(parts.glob("*/receipt.json"))
    file = finished[0].parent / name
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    if damage == "lose":
        file.unlink()
    else:
        file.write_bytes(data[:-1] if damage == "cut" else data)
    assert encode(corpus, output) == undisturbed
    assert num_resumed(output) == len(finished) - 1


def edit_text(corpus: Path) -> dict[str, Any]:
    path = corpus / "rows.jsonl"
    path.write_bytes(path.read_bytes().replace(b"hello", b"jello", 1))  # of the same length
    return {}


def add_file(corpus: Path) -> dict[str, Any]:
    (corpus / "new.py").write_text("new = 1\n")
    return {}


def remove_file(corpus: Path) -> dict[str, Any]:
    (corpus / "3.py").unlink()
    return {}


def other_separators(_corpus: Path) -> dict[str, Any]:
    return {"eos_policy": "between"}


def other_field(corpus: Path) -> dict[str, Any]:
    path = corpus / "rows.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"content"', b'"text"'))
    return {"content_field": "text"}


@pytest.mark.parametrize(
    "change", [edit_text, add_file, remove_file, other_separators, other_field]
)
def test_a_changed_input_or_setting_gives_what_a_fresh_run_gives(
    corpus: Path, undisturbed: str, change: Callable[[Path], dict[str, Any]]
) -> None:
    output = corpus.parent / "out"
    interrupted(corpus, output)
    options = change(corpus)
    changed = encode(corpus, output, **options)
    assert changed == encode(corpus, corpus.parent / "fresh", **options)
    # Another name of the field over the same texts is the same data.
    assert (changed == undisturbed) == (change is other_field)


def test_another_tokenizer_invalidates_all_that_was_finished(corpus: Path) -> None:
    output = corpus.parent / "out"
    interrupted(corpus, output)
    composing = tokenizer(set_in("normalizer", to={"type": "NFC"}))
    encode_corpus([corpus], tokenizer=composing, output=output, **OPTIONS)
    assert num_resumed(output) == 0
    fingerprint = ShardReader.open(output).manifest.tokenizer_fingerprint
    assert fingerprint == composing.fingerprint != tokenizer().fingerprint


def test_a_second_encoder_of_the_same_target_is_refused(corpus: Path) -> None:
    output = corpus.parent / "out"
    refused: list[Refusal] = []

    def begin_another(_progress: Progress) -> None:
        if not refused:
            with pytest.raises(Refusal) as second:
                encode(corpus, output)
            refused.append(second.value)

    encode(corpus, output, progress=begin_another)
    assert [refusal.id for refusal in refused] == ["shards.busy"]
    ShardReader.open(output)


def test_a_worker_that_never_returns_is_noticed(corpus: Path) -> None:
    frozen: list[int] = []

    def freeze(_progress: Progress) -> None:
        if not frozen:
            frozen.extend(workers())
            for pid in frozen:
                os.kill(pid, signal.SIGSTOP)

    def executor(work: Work) -> None:
        run_in_processes(work, num_workers=2, stall_s=1.0)

    started_s = time.monotonic()
    with pytest.raises(Refusal) as refused:
        encode(corpus, corpus.parent / "out", progress=freeze, executor=executor)
    assert refused.value.id == "shards.worker-stalled"
    assert len(frozen) == 2
    assert time.monotonic() - started_s < 30
    assert nurseries() == []
    assert not any(map(is_alive, frozen))


def test_a_worker_that_dies_again_and_again_is_refused(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel kills one that takes too much memory: every time it comes to the task."""
    (corpus.parent / "sitecustomize.py").write_text(
        "import os, sys\nif 'encode_worker' in str(sys.orig_argv): os.kill(os.getpid(), 9)"
    )
    monkeypatch.setenv("PYTHONPATH", str(corpus.parent))
    with pytest.raises(Refusal) as refused:
        encode(corpus, corpus.parent / "out", executor=make_executor(num_workers=2))
    assert refused.value.id == "shards.worker-died"
    assert "SIGKILL, 2 times" in refused.value.found


KILLED = """
import os, signal, sys
from apr.cli import main, output
num_left = int(sys.argv[1])
def kill(_progress):
    global num_left
    num_left -= 1
    if num_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
output.progress = lambda: kill
sys.exit(main.run(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("corpus split corpus -o out --group file --val-fraction 0.2", {"out"}),
        ("corpus dedup corpus -o list.jsonl --no-near", {"list.jsonl"}),
        (
            "corpus decontaminate corpus --against set.jsonl -o list.jsonl",
            {"list.jsonl", "list.certificate.json"},
        ),
    ],
)
def test_a_killed_corpus_command_run_again_leaves_nothing_of_the_first(
    corpus: Path, line: str, written: set[str]
) -> None:
    here = corpus.parent
    (corpus / "bad.py").unlink()
    item = {"task_id": "a", "prompt": " ".join(f"word{n}" for n in range(40)), "test": ""}
    (here / "set.jsonl").write_text(json.dumps(item | {"canonical_solution": "pass"}) + "\n")
    before = set(os.listdir(here))
    environment = os.environ | {"PYTHONPATH": ":".join(sys.path)}

    def start(kill_at: int) -> tuple[int, set[str]]:
        words = [sys.executable, "-c", KILLED, str(kill_at), *line.split()]
        done = subprocess.run(words, cwd=here, env=environment, capture_output=True, text=True)
        return done.returncode, set(os.listdir(here)) - before

    left: set[str] = set()
    for kill_at in (10, 70, 90):
        code, left = start(kill_at)
        assert code == -signal.SIGKILL
        assert len(left) <= 1, "each run deletes what the one before it left"
    assert [name.endswith(".tmp") for name in left] == [True]
    assert start(0) == (0, written)
