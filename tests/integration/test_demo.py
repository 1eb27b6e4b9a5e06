"""The demo's flow on a small part of the standard library: start, stop, resume, start again."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_pretrain import record_of, stop_after

from apr.cli.main import run
from apr.corpus.interpreter import interpreter_documents
from apr.corpus.reading.account import Account
from apr.corpus.reading.documents import Document, read_documents
from apr.errors import Interrupted, Refusal
from apr.jobs.demo import DemoParts, demo, finished_demo
from apr.jobs.resume import resume
from apr.jobs.sitting import Listener
from apr.shards.reader import ShardReader

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    """Enough of the library for the held-out minimum, little enough to train on in seconds."""
    every = interpreter_documents(drops=Account())
    groups = sorted({document.group for document in every})
    chosen = set(groups[::2]) - {"test", "idlelib", "lib2to3"}
    return [document for document in every if document.group in chosen]


@pytest.fixture(scope="module")
def finished(documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo that was stopped after its first step and finished as a person would be told to."""
    root = tmp_path_factory.mktemp("demo") / "demo"
    with pytest.raises(Interrupted) as stopped:
        demo(
            root,
            num_steps=3,
            documents=documents,
            cache_directory=root.parent / "cache",
            listener=Listener(should_stop=stop_after(2)),
        )
    assert stopped.value.resume_command == f"apr pretrain --resume {root}"
    with pytest.raises(Refusal) as refused:
        finished_demo(root)
    assert refused.value.id == "demo.unfinished"
    resume(root)
    assert record_of(root).get("reopened_loss_nats") is None
    assert finished_demo(root) is not None
    return root


def test_the_record_of_a_demo(finished: Path) -> None:
    record, parts = record_of(finished), DemoParts(finished)
    assert record["outcome"] == "budget_exhausted"
    assert record["baselines"]["unigram_bits_per_byte"] > record["baselines"]["gzip_bits_per_byte"]
    assert record["val"]["bits_per_byte"] > 0
    assert len(record["samples"]) == 3
    assert abs(record["reopened_loss_nats"] - record["val"]["best_loss_nats"]) < 2e-3
    waived = [gate["id"] for gate in record["gates"] if gate["waiver"]]
    assert waived == ["preflight.token-budget"]
    val = ShardReader.open(parts.val_shards)
    assert val.manifest.total_documents >= 30
    assert val.num_tokens >= 80_000


def test_f21_no_package_and_no_text_stands_on_both_sides(finished: Path) -> None:
    parts = DemoParts(finished)
    sides = [
        list(read_documents([path], drops=Account(), group_field="group"))
        for path in (parts.train_corpus, parts.val_corpus)
    ]
    groups = [{document.group for document in side} for side in sides]
    assert len(groups[0]) > 5
    assert len(groups[1]) > 2
    assert groups[0] & groups[1] == set()
    texts = [{document.text for document in side} for side in sides]
    assert texts[0] & texts[1] == set()


def test_a_second_demo_shows_the_first_and_how_to_start_over(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "run.json").read_bytes()
    assert run(["demo", "-o", str(finished)]) == 0
    shown = capsys.readouterr().out
    assert f"apr demo --overwrite -o {finished}" in shown
    assert "bits per byte" in shown
    assert run(["demo", "-o", str(finished), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {"outcome", "val", "init_loss_nats", "model", "report"} <= said.keys()
    assert (finished / "run.json").read_bytes() == before


def test_a_demo_that_was_stopped_before_its_first_step_begins_again(
    documents: list[Document], tmp_path: Path
) -> None:
    root = tmp_path / "demo"
    options: dict[str, Any] = {"documents": documents, "cache_directory": tmp_path / "cache"}

    def stop_before_training(text: str) -> None:
        if not text.startswith("corpus"):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            demo(root, num_steps=3, listener=Listener(notify=stop_before_training), **options)
        assert DemoParts(root).val_shards.is_dir()
        assert not (root / "run.json").exists()
    (root / "thesis.tex").write_text("years of work")
    with pytest.raises(Refusal) as refused:
        demo(root, num_steps=3, **options)
    assert refused.value.id == "files.foreign-content"
    assert (root / "thesis.tex").read_text() == "years of work"


def test_foreign_files_are_never_deleted(documents: list[Document], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(Refusal) as refused:
        demo(tmp_path, overwrite=True, documents=documents)
    assert refused.value.id == "files.foreign-content"
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
