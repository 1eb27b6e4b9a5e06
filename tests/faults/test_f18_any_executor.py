"""F18, whoever does the work: workers, slices and Ray write the same bytes."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.tokenizer_files import tokenizer

from apr.errors import Refusal, UsageRefusal
from apr.files import sha256_file
from apr.shards.encode import MadeBefore, Unfinished, encode, encode_slice
from apr.shards.encoding.executors import make_executor, run_here
from apr.shards.encoding.plan import TASK_BYTES
from apr.shards.encoding.request import Request
from apr.shards.encoding.work import Work
from apr.shards.manifest import Manifest
from apr.shards.reader import ShardReader

pytestmark = pytest.mark.slow

NOT_COMPARED = "encode.json"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    root.mkdir()
    rows = [json.dumps({"content": "hello " * (7 * n % 40) + str(n)}) for n in range(80)]
    (root / "rows.jsonl").write_text("\n".join(rows))
    for number in range(12):
        (root / f"{number}.py").write_text(f"x = {number}\n" * (5 * number + 1))
    return root


def request(corpus: Path, output: Path, *, task_bytes: int = 1200) -> Request:
    return Request(
        corpus=[corpus],
        tokenizer=tokenizer(),
        output=output,
        shard_tokens=500,
        content_field="content",
        eos_policy="between",
        exclude=(),
        removals=(),
        certificate=None,
        max_quarantined=0,
        overwrite=False,
        task_bytes=task_bytes,
        encoder="reference",
        cache_directory=None,
    )


def files(output: Path) -> dict[str, str]:
    return {name: sha256_file(output / name) for name in os.listdir(output) if name != NOT_COMPARED}


@pytest.fixture
def expected(corpus: Path) -> dict[str, str]:
    encode(request(corpus, corpus.parent / "expected"))
    found = files(corpus.parent / "expected")
    assert len(found) > 6
    return found


@pytest.mark.parametrize("num_workers", [2, 4])
def test_any_number_of_workers(corpus: Path, expected: dict[str, str], num_workers: int) -> None:
    output = corpus.parent / "out"
    encode(request(corpus, output), executor=make_executor(num_workers=num_workers))
    assert files(output) == expected


@pytest.mark.parametrize("task_bytes", [100, 5000, TASK_BYTES])
def test_any_size_of_task(corpus: Path, expected: dict[str, str], task_bytes: int) -> None:
    output = corpus.parent / "out"
    encode(request(corpus, output, task_bytes=task_bytes))
    # Frames of compressed rows follow the tasks; what they hold does not.
    found, wanted = files(output), dict(expected)
    del found["documents.jsonl.zst"], wanted["documents.jsonl.zst"]
    assert found == wanted


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_slices_in_any_order(
    corpus: Path, expected: dict[str, str], order: tuple[int, ...]
) -> None:
    output = corpus.parent / "out"
    *before, last = order
    for index in before:
        result = encode_slice(request(corpus, output), index=index, count=3)
        assert isinstance(result, Unfinished)
        assert 0 < result.num_tasks_done < result.num_tasks
        assert not output.exists()
    assert isinstance(encode_slice(request(corpus, output), index=last, count=3), Manifest)
    assert files(output) == expected


def test_a_whole_run_finishes_what_a_slice_began(corpus: Path, expected: dict[str, str]) -> None:
    output = corpus.parent / "out"
    encode_slice(request(corpus, output), index=1, count=2)
    encode(request(corpus, output))
    assert files(output) == expected
    assert json.loads((output / "encode.json").read_text())["num_tasks_resumed"] > 3


def test_the_same_slice_twice_at_once_is_refused(corpus: Path) -> None:
    output = corpus.parent / "out"

    def begin_again(_work: object) -> None:
        encode_slice(request(corpus, output), index=0, count=2)

    with pytest.raises(Refusal) as refused:
        encode_slice(request(corpus, output), index=0, count=2, executor=begin_again)
    assert refused.value.id == "shards.busy"


def test_slices_with_other_settings_are_refused(corpus: Path) -> None:
    output = corpus.parent / "out"
    encode_slice(request(corpus, output), index=0, count=2)
    other = replace(request(corpus, output), eos_policy="after")
    with pytest.raises(Refusal) as refused:
        encode_slice(other, index=1, count=2)
    assert refused.value.id == "shards.slices-differ"
    assert (refused.value.found, refused.value.expected) == (
        "eos_policy after",
        "eos_policy between",
    )


def test_a_slice_leaves_alone_what_another_is_writing(corpus: Path) -> None:
    output = corpus.parent / "out"
    half_written = output.with_name("out.partial") / "parts" / "0123.other.tmp"
    half_written.mkdir(parents=True)
    encode_slice(request(corpus, output), index=0, count=2)
    assert half_written.exists()
    encode(request(corpus, output))
    assert not half_written.exists()


@pytest.mark.parametrize(("index", "count"), [(0, 2), (99, 100)])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_slice_after_the_end_finds_the_shards_of_its_job(
    corpus: Path, expected: dict[str, str], index: int, count: int, overwrite: bool
) -> None:
    output = corpus.parent / "out"
    encode_slice(request(corpus, output), index=0, count=1)
    late = replace(request(corpus, output), overwrite=overwrite)

    def do_nothing(_work: object) -> None:
        raise AssertionError("there is nothing left to do")

    found = encode_slice(late, index=index, count=count, executor=do_nothing)
    assert isinstance(found, MadeBefore)
    assert found.manifest == ShardReader.open(output).manifest
    assert files(output) == expected
    assert not output.with_name("out.partial").exists()


def other_size(late: Request) -> Request:
    return replace(late, shard_tokens=400)


def other_settings(late: Request) -> Request:
    return replace(late, eos_policy="after")


def other_text(late: Request) -> Request:
    (path,) = [path for path in late.corpus if isinstance(path, Path)]
    (path / "3.py").write_text((path / "3.py").read_text().replace("3", "4"))  # of one size
    return late


def other_file(late: Request) -> Request:
    (path,) = [path for path in late.corpus if isinstance(path, Path)]
    (path / "zzz.py").write_text("z = 1\n")
    return late


def no_record(late: Request) -> Request:
    (late.output / "encode.json").unlink()
    return late


@pytest.mark.parametrize("change", [other_size, other_settings, other_text, other_file, no_record])
def test_a_slice_after_the_end_of_another_job_is_refused(
    corpus: Path, change: Callable[[Request], Request]
) -> None:
    output = corpus.parent / "out"
    encode(request(corpus, output))
    late = change(request(corpus, output))
    with pytest.raises(Refusal) as refused:
        encode_slice(late, index=0, count=1)
    assert refused.value.id == "files.exists"
    assert not output.with_name("out.partial").exists()


def test_damaged_shards_of_the_same_job_are_not_called_complete(corpus: Path) -> None:
    output = corpus.parent / "out"
    encode(request(corpus, output))
    shard = output / "shard-00000.bin"
    before = shard.read_bytes()
    shard.write_bytes(bytes(before[:-1]) + bytes([before[-1] ^ 1]))
    with pytest.raises(Refusal) as refused:
        encode_slice(request(corpus, output), index=0, count=1)
    assert refused.value.id == "shards.hash-mismatch"
    again = replace(request(corpus, output), overwrite=True)
    assert isinstance(encode_slice(again, index=0, count=1), Manifest)
    assert shard.read_bytes() == before


def test_a_slice_that_was_overtaken_leaves_nothing_behind(
    corpus: Path, expected: dict[str, str]
) -> None:
    output = corpus.parent / "out"

    def be_overtaken(work: Work) -> None:
        encode_slice(request(corpus, output), index=1, count=3)
        encode_slice(request(corpus, output), index=2, count=3)
        run_here(work)
        encode_slice(request(corpus, output), index=1, count=2)

    found = encode_slice(request(corpus, output), index=0, count=3, executor=be_overtaken)
    assert isinstance(found, MadeBefore)
    assert files(output) == expected
    assert not output.with_name("out.partial").exists()


@pytest.mark.parametrize("rows", ["", '{"content": ""}\n'])
def test_slices_of_an_empty_corpus_leave_nothing(tmp_path: Path, rows: str) -> None:
    corpus = tmp_path / "in.jsonl"
    corpus.write_text(rows)
    if rows:  # one task, which the other slice has
        late = encode_slice(request(corpus, tmp_path / "out"), index=1, count=2)
        assert late == Unfinished(1, 0)
    with pytest.raises(Refusal) as refused:
        encode_slice(request(corpus, tmp_path / "out"), index=0, count=2)
    assert refused.value.id == "corpus.empty"
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(("index", "count"), [(2, 2), (-1, 2), (0, 0)])
def test_a_slice_that_is_none_is_refused(corpus: Path, index: int, count: int) -> None:
    with pytest.raises(UsageRefusal) as refused:
        encode_slice(request(corpus, corpus.parent / "out"), index=index, count=count)
    assert refused.value.id == "shards.slice"


def test_no_workers_are_refused() -> None:
    with pytest.raises(UsageRefusal) as refused:
        make_executor(num_workers=0)
    assert refused.value.id == "shards.num-workers"


def test_ray_writes_the_same_bytes(corpus: Path, expected: dict[str, str]) -> None:
    ray = pytest.importorskip("ray")
    output = corpus.parent / "out"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        encode(request(corpus, output), executor=make_executor("ray", num_workers=2))
    finally:
        ray.shutdown()
    assert files(output) == expected


def test_what_a_task_refuses_on_ray_is_refused_here(corpus: Path) -> None:
    ray = pytest.importorskip("ray")
    output = corpus.parent / "out"
    planned = request(corpus, output)

    def shorten(work: object) -> None:
        (corpus / "rows.jsonl").write_text("")
        make_executor("ray", num_workers=1)(work)  # pyright: ignore[reportArgumentType]

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        with pytest.raises(Refusal) as refused:
            encode(planned, executor=shorten)
    finally:
        ray.shutdown()
    assert refused.value.id == "corpus.input-changed"
