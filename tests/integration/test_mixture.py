"""A run over two datasets: what was read of each, resumed as the same run, shown and reported."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.run_data import RunData
from tests.unit.report.page_reader import Page

from apr.cli.main import run as run_command
from apr.errors import Interrupted, Refusal
from apr.files import read_json, sha256_file, write_json
from apr.jobs.pretrain import pretrain
from apr.jobs.resume import resume
from apr.jobs.show_batch import show_batch
from apr.jobs.sitting import Listener
from apr.model.weights import load_model
from apr.shards.reader import ShardReader
from apr.train.batches import Batch
from apr.train.checkpoint import checkpoint_dir
from apr.train.config import TrainConfig
from apr.train.inputs import open_inputs
from apr.train.mixture import BatchOrder

NUM_STEPS, BATCH_SIZE, SEQ_LENGTH = 8, 4, 32
WEIGHTS = (3.0, 1.0)


def mixture(
    data: RunData, sources: tuple[Path, Path], run_dir: Path, **changes: Any
) -> TrainConfig:
    datasets = [
        {"path": path, "weight": weight} for path, weight in zip(sources, WEIGHTS, strict=True)
    ]
    return data.config(run_dir, **{"dataset": datasets, "grad_accum": 2} | changes)


def stop_after(num_questions: int) -> Callable[[], bool]:
    answers = iter([False] * num_questions)
    return lambda: next(answers, True)


@pytest.fixture(scope="module")
def finished(
    run_data: RunData, sources: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run_dir = tmp_path_factory.mktemp("mixture") / "run"
    pretrain(mixture(run_data, sources, run_dir))
    return run_dir


@pytest.fixture
def order(finished: Path) -> BatchOrder:
    """The batches of the run, from nothing but its record."""
    config = TrainConfig.model_validate(record_of(finished)["config"])
    return BatchOrder(open_inputs(config).data.train, config.batch_size, config.seed)


def record_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "run.json").read_text())


def test_the_record_counts_the_tokens_of_each_source(
    finished: Path, sources: tuple[Path, Path], order: BatchOrder
) -> None:
    batches = [order.batch(step) for step in range(1, NUM_STEPS + 1)]
    drawn = [at for batch in batches for at in batch.source_indices or ()]
    assert (drawn.count(0), drawn.count(1)) == (24, 8)
    record, readers = record_of(finished), [ShardReader.open(path) for path in sources]
    assert [each["sha256"] for each in record["inputs"]["train"]] == [
        reader.manifest_sha256 for reader in readers
    ]
    assert [each["share"] for each in record["inputs"]["train"]] == [0.75, 0.25]
    seen = [each["tokens_seen"] for each in record["tokens_by_source"]]
    assert seen == counted(batches)
    assert sum(seen) == record["tokens_seen"]
    unique = [reader.num_tokens for reader in readers]
    assert [each["unique_tokens"] for each in record["tokens_by_source"]] == unique
    assert record["unique_tokens"] == sum(unique)
    assert record["epochs_over_data"] == record["tokens_seen"] / (sum(unique) - 2)
    for each, tokens, size in zip(record["tokens_by_source"], seen, unique, strict=True):
        assert each["epochs_over_data"] == tokens / (size - 1)
    (entry,) = load_model(finished / "model.apr").metadata.free["apr.provenance"]
    assert entry["train_manifests_sha256"] == [reader.manifest_sha256 for reader in readers]


def test_a_checkpoint_holds_the_tokens_of_its_own_step(finished: Path, order: BatchOrder) -> None:
    for step in (6, 8):
        state = json.loads((checkpoint_dir(finished, step) / "state.json").read_text())
        assert state["tokens_by_source"] == counted([order.batch(at) for at in range(1, step + 1)])


def counted(batches: list[Batch]) -> list[int]:
    """Targets of each source, over some batches."""
    return [
        sum(each) for each in zip(*(b.counted_tokens_by_source(2) for b in batches), strict=True)
    ]


def test_f34_a_resumed_mixture_equals_the_uninterrupted_one(
    finished: Path,
    run_data: RunData,
    sources: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    run_dir = tmp_path / "run"
    listener = Listener(should_stop=stop_after(4))
    with pytest.raises(Interrupted):
        pretrain(mixture(run_data, sources, run_dir), listener=listener)
    stopped = record_of(run_dir)
    tokens = sum(each["tokens_seen"] for each in stopped["tokens_by_source"])
    assert 0 < tokens == stopped["tokens_seen"] < record_of(finished)["tokens_seen"]
    assert resume(run_dir)["resumes"][0]["step"] == 3
    assert record_of(run_dir)["tokens_by_source"] == record_of(finished)["tokens_by_source"]
    for name in ("model.apr", "state.safetensors"):
        files = [checkpoint_dir(each, NUM_STEPS) / name for each in (finished, run_dir)]
        tensors = [
            load_file(file) if name == "state.safetensors" else _weights(file) for file in files
        ]
        assert tensors[0].keys() == tensors[1].keys()
        assert all(tensors[0][key].equal(tensors[1][key]) for key in tensors[0])
        assert len(tensors[0]) > 10


def _weights(file: Path) -> dict[str, Any]:
    return dict(load_model(file).model.state_dict())


def test_f35_the_sources_of_a_resume_are_those_of_the_run_in_their_order(
    run_data: RunData, sources: tuple[Path, Path], tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    listener = Listener(should_stop=stop_after(3))
    with pytest.raises(Interrupted):
        pretrain(mixture(run_data, sources, run_dir), listener=listener)
    record = record_of(run_dir)
    datasets = record["config"]["dataset"]
    for changed, where in (
        (datasets[::-1], "training shards"),
        ([datasets[0], datasets[1] | {"path": str(run_data.train)}], "training shards 2 of 2"),
        ([datasets[0] | {"weight": None}], "number of training datasets"),
    ):
        write_json(
            run_dir / "run.json", record | {"config": record["config"] | {"dataset": changed}}
        )
        with pytest.raises(Refusal) as refused:
            resume(run_dir)
        assert (refused.value.id, refused.value.where) == ("resume.inputs-changed", where)
    write_json(run_dir / "run.json", record)
    assert resume(run_dir)["outcome"] == "budget_exhausted"


def test_a_checkpoint_from_before_mixtures_is_gone_on_with(
    run_data: RunData, tmp_path: Path
) -> None:
    """Of one dataset, all tokens are its own."""
    run_dir = tmp_path / "run"
    with pytest.raises(Interrupted):
        pretrain(run_data.config(run_dir), listener=Listener(should_stop=stop_after(6)))
    directory = checkpoint_dir(run_dir, 5)
    state = json.loads((directory / "state.json").read_text())
    assert state.pop("tokens_by_source") == [state["tokens_seen"]]
    write_json(directory / "state.json", state)
    listing = read_json(directory / "checkpoint.json", limit_bytes=1 << 20, id="x", what="x")
    path = directory / "state.json"
    listing["files"]["state.json"] = {
        "size_bytes": path.stat().st_size,
        "sha256": sha256_file(path),
    }
    write_json(directory / "checkpoint.json", listing)
    ended = resume(run_dir)
    assert [each["tokens_seen"] for each in ended["tokens_by_source"]] == [ended["tokens_seen"]]
    assert ended["resumes"][0]["step"] == 5


def test_show_batch_names_the_dataset_of_each_row(
    finished: Path, sources: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = show_batch(finished, step=3)
    assert [Path(row.dataset) for row in shown.rows].count(sources[0]) == 3
    readers = {str(path): ShardReader.open(path) for path in sources}
    assert shown.manifests_sha256 == {
        path: reader.manifest_sha256 for path, reader in readers.items()
    }
    for row in shown.rows:
        reader = readers[row.dataset]
        assert row.first_token == row.row_index * SEQ_LENGTH
        for piece in row.pieces:
            start, stop = reader.document_range(piece.document)
            assert start <= piece.first_token < stop
            assert piece.source == str(Path(row.dataset).parent / "documents.jsonl")
    assert show_batch(finished, step=3, row=1).rows == (shown.rows[1],)
    assert run_command(["tokenize", "show-batch", str(finished), "--step", "3"]) == 0
    text = capsys.readouterr().out
    assert all(f" of {path} in epoch 1" in text for path in sources)


def test_the_page_compares_what_was_asked_with_what_was_read(
    finished: Path, sources: tuple[Path, Path]
) -> None:
    text = Page(finished / "report.html").texts["mixture"]
    assert all(str(path) in text for path in sources)
    assert "75%" in text
    assert "25%" in text
    assert all(
        f"{each['tokens_seen']:,}" in text for each in record_of(finished)["tokens_by_source"]
    )


def test_a_page_of_one_dataset_has_no_such_table(run_data: RunData, tmp_path: Path) -> None:
    pretrain(run_data.config(tmp_path / "run", num_steps=2))
    page = Page(tmp_path / "run" / "report.html")
    assert "mixture" not in page.texts
    assert "tokens_by_source" not in page.texts["remainder"]


def test_the_command_line_mixes(
    run_data: RunData,
    sources: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = run_data.flags(tmp_path / "run")[2:]
    small, large = (f"--dataset={path}" for path in sources)
    assert run_command(["pretrain", f"{small}=3", f"{large}=1", *flags, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["config"]["dataset"] == [
        {"path": str(path), "weight": weight} for path, weight in zip(sources, WEIGHTS, strict=True)
    ]
    copy = shutil.copytree(sources[0], tmp_path / "copy")
    for datasets, id in (
        ([f"{small}=3", large], "config.mixture-weights"),
        ([f"{small}=nan", f"{large}=1"], "config.invalid"),
        ([f"{small}=0", f"{large}=1"], "config.invalid"),
        ([small, large, f"--dataset={copy}"], "config.mixture-repeated"),
        ([f"{small}=1", f"{large}=1e-9"], "config.mixture-share"),
    ):
        assert run_command(["pretrain", *datasets, *flags, "--json"]) == 2
        assert json.loads(capsys.readouterr().out)["refused"]["id"] == id
    without_val = flags[2:]
    assert run_command(["pretrain", small, large, *without_val, "--json"]) == 5
    refused = json.loads(capsys.readouterr().out)["refused"]
    assert refused["id"] == "config.mixture-without-val"
    assert not (tmp_path / "run").exists()
