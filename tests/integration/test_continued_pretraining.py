"""A real model goes on learning: import, stamp, encode, judge, train, read back.

The model is stories260K, 260,032 parameters that somebody else trained; the text is made by rule,
of the kind that it knows.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.container_models import ModelFile, hashes
from tests.stories import stories

from apr.container import free_keys
from apr.container.reader import Container
from apr.container.stamp import Claims, stamp
from apr.corpus.deduplication.dedup import dedup_corpus
from apr.corpus.reading.jsonl import write_rows
from apr.errors import Refusal
from apr.jobs.import_model import import_model
from apr.jobs.pretrain import preflight, pretrain
from apr.jobs.sitting import Listener
from apr.model.weights import load_model
from apr.shards.encode import encode_corpus
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.config import TrainConfig
from apr.train.gates import Gate
from apr.train.resolved_config import resolve_config

pytestmark = pytest.mark.slow

HEAD = "model.embed_tokens.weight"


@dataclass(frozen=True)
class Base:
    """A model, its tokenizer, and shards of its kind of text."""

    root: Path
    model: Path

    def config(self, run_dir: Path, **changes: Any) -> TrainConfig:
        """A run of half a minute at most."""
        options: dict[str, Any] = {
            "init": self.model,
            "dataset": self.root / "train",
            "val_shard": self.root / "val",
            "tokenizer": self.root / "tokenizer",
            "run_dir": run_dir,
            "num_steps": 30,
            "batch_size": 4,
            "seq_length": 128,
            "eval_every": 15,
            "learning_rate": 1e-3,
            "warmup_steps": 3,
            "precision": "fp32",
            "compile": False,
            "device": "cpu",
        }
        return resolve_config(options | changes)


@pytest.fixture(scope="module")
def base(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Everything up to the run, as a person makes it."""
    root = tmp_path_factory.mktemp("stories")
    source = shared_data / "checkpoints" / "stories260K" / "hf"
    import_model(source, output=root / "imported.apr", ask_transformers=False)
    stamp(root / "imported.apr", Claims(pretraining_tokens=10**9), output=root / "base.apr")
    tokenizer = Tokenizer.from_json_bytes(
        (source / "tokenizer.json").read_bytes(), eos_token="</s>", where="stories260K"
    )
    tokenizer.save(root / "tokenizer")
    write_rows(root / "train.jsonl", [(text, "made") for text in stories(300, seed=0)])
    write_rows(root / "val.jsonl", [(text, "made") for text in stories(60, seed=1)])
    dedup_corpus(
        [root / "train.jsonl"],
        held_out=[root / "val.jsonl"],
        output=root / "checked",
        jaccard=None,
    )
    for side in ("train", "val"):
        encode_corpus(
            [root / f"{side}.jsonl"],
            tokenizer=tokenizer,
            encoder="reference",
            output=root / side,
            certificate=root / "checked" / "certificate.json",
        )
    return Base(root, root / "base.apr")


def gates_of(config: TrainConfig) -> dict[str, Gate]:
    plan = preflight(config)
    assert not config.run_dir.exists()
    return {gate.id.removeprefix("preflight."): gate for gate in plan.gates}


def test_a_real_model_starts_from_what_it_knows_and_learns_more(base: Base, tmp_path: Path) -> None:
    said: list[str] = []
    record = pretrain(base.config(tmp_path / "run"), listener=Listener(notify=said.append))
    # Nothing was waived: this is the good run.
    assert {gate["verdict"] for gate in record["gates"]} == {"PASS"}
    assert 0.5 < record["init_loss_nats"] < 2.0 < 0.4 * math.log(512)
    assert record["val"]["best_loss_nats"] < record["init_loss_nats"] - 0.5
    # The target of its mode, 2.2, was met before step 1, which is no success of the run.
    assert record["outcome"] == "budget_exhausted"
    assert record["config"]["target_val_loss"] is None
    assert any("no target" in text for text in said)
    lines = (tmp_path / "run" / "steps.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    first, *_, last = [line["loss_nats"] for line in steps if line["kind"] == "step"]
    assert last < first - 0.5
    with Container.open(tmp_path / "run" / "model.apr") as container:
        entry = container.metadata.free[free_keys.PROVENANCE][-1]
    assert entry["tokens_seen_before"] == 10**9
    assert entry["val_loss_nats"] == record["val"]["best_loss_nats"]


def test_a_target_that_is_met_before_step_1_is_no_target(base: Base, tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        pretrain(base.config(tmp_path / "run", target_val_loss=2.0))
    assert refused.value.id == "config.target-met-already"
    assert not (tmp_path / "run").exists()


def test_f09_the_wrong_tokenizer_is_refused(base: Base, shared_data: Path, tmp_path: Path) -> None:
    other = shared_data / "tokenizers" / "gpt2" / "tokenizer.json"
    gates = gates_of(base.config(tmp_path / "run", tokenizer=other))
    assert gates["tokenizer-fingerprint"].verdict == "FAIL"
    assert "base.apr" in gates["tokenizer-fingerprint"].found
    assert gates["vocab-size"].verdict == "FAIL"
    assert gates["vocab-size"].upstream_id == "FALSIFY-APR-PRETRAIN-ARCH-010"


def rewritten(path: Path, target: Path, change: Callable[[dict[str, NDArray[Any]]], None]) -> Path:
    """A copy with other tensors, sound in every byte."""
    loaded = load_model(path)
    arrays: dict[str, NDArray[Any]] = {
        name: parameter.detach().numpy().copy()
        for name, parameter in loaded.model.named_parameters()
    }
    change(arrays)
    file = ModelFile(loaded.model.architecture, arrays, loaded.metadata)
    file.set_free(hashes(arrays))
    return file.write(target)


def permute_head(arrays: dict[str, NDArray[Any]]) -> None:
    arrays[HEAD] = arrays[HEAD][np.random.default_rng(0).permutation(len(arrays[HEAD]))]


def swap_layers(arrays: dict[str, NDArray[Any]]) -> None:
    first, second = (f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (1, 2))
    arrays[first], arrays[second] = arrays[second], arrays[first]


@pytest.mark.parametrize("change", [permute_head, swap_layers])
def test_f01_weights_that_are_not_those_imported_are_refused(
    base: Base, tmp_path: Path, change: Callable[[dict[str, NDArray[Any]]], None]
) -> None:
    planted = rewritten(base.model, tmp_path / "planted.apr", change)
    gate = gates_of(base.config(tmp_path / "run", init=planted))["init-loss"]
    assert gate.verdict == "FAIL"


def test_the_harmless_twin_written_again_is_the_same_model(base: Base, tmp_path: Path) -> None:
    copy = rewritten(base.model, tmp_path / "copy.apr", lambda _arrays: None)
    gates = gates_of(base.config(tmp_path / "run", init=copy))
    assert {gate.verdict for gate in gates.values()} == {"PASS"}
