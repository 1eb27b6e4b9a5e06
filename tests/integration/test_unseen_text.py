"""F21: what a run holds out may be what its initial model was trained on, and then that is said."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.run_data import RunData, make_sources

from apr.corpus.deduplication.dedup import dedup_corpus
from apr.jobs.pretrain import pretrain
from apr.jobs.sitting import Listener
from apr.report.page import write_report
from apr.shards.encode import encode_corpus
from apr.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.slow


def other_way_round(data: RunData, root: Path) -> tuple[Path, Path]:
    """Shards to train on of what was held out, and to hold out of what was trained on."""
    train, val = data.root / "val.jsonl", data.root / "train.jsonl"
    found = dedup_corpus([train], held_out=[val], output=root / "checked", jaccard=None)
    assert found.removals.num_entries == 0
    for corpus, output in ((train, root / "train"), (val, root / "val")):
        encode_corpus(
            [corpus],
            tokenizer=Tokenizer.load(data.tokenizer),
            encoder="reference",
            output=output,
            certificate=root / "checked" / "certificate.json",
        )
    return root / "train", root / "val"


def trained(data: RunData, run_dir: Path, **changes: Any) -> tuple[dict[str, Any], list[str]]:
    said = list[str]()
    options = {"num_steps": 2, "eval_every": 2, "warmup_steps": 1, **changes}
    pretrain(data.config(run_dir, **options), listener=Listener(notify=said.append))
    return json.loads((run_dir / "run.json").read_text()), said


@pytest.fixture(scope="module")
def base(run_data: RunData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("base") / "run"
    record, said = trained(run_data, run_dir)
    # Fresh weights have seen nothing.
    assert record["val"]["unseen_by_initial_model"] is True
    assert not any("held-out text" in line for line in said)
    return run_dir / "model.apr"


@pytest.mark.parametrize("there", ["the same", "more to train on", "the other way round"])
def test_f21_a_model_that_may_have_seen_the_held_out_text_is_named(
    run_data: RunData, tmp_path: Path, base: Path, there: str
) -> None:
    changes: dict[str, Any] = {"init": base, "arch": None, "learning_rate": 1e-4}
    if there == "more to train on":
        changes["dataset"], _ = make_sources(run_data, tmp_path / "sources")
    if there == "the other way round":
        changes["dataset"], changes["val_shard"] = other_way_round(run_data, tmp_path)
        waived = ("preflight.token-budget", "preflight.init-loss")
        changes["waive"] = dict.fromkeys(waived, "two steps of training")
    record, said = trained(run_data, tmp_path / "run", **changes)
    val = record["val"]
    page = write_report(tmp_path / "run").read_text()
    if there != "the other way round":
        assert (val["unseen_by_initial_model"], val["unseen_by_initial_model_reason"]) == (
            True,
            None,
        )
        assert "nothing says that it has not seen" not in page
        return
    assert val["unseen_by_initial_model"] is None
    assert "nothing says that it has not seen" in val["unseen_by_initial_model_reason"]
    assert any("nothing says that it has not seen" in line for line in said)
    assert "nothing says that it has not seen" in page
