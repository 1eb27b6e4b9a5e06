"""Models and checkpoints that must not be written, loaded, or taken for another (F28, F36, F38)."""

import json
from pathlib import Path

import pytest
import torch
from tests.run_data import RunData
from tests.unit.train.batch_fixture import tiny_model

from apr.architecture import preset
from apr.cli.main import run
from apr.errors import DamagedFile, Interrupted, Refusal
from apr.files import sha256_file
from apr.jobs.pretrain import pretrain
from apr.jobs.resume import resume
from apr.jobs.sitting import Listener
from apr.model.init import initialize
from apr.model.transformer import Transformer
from apr.model.weights import load_model, save_model
from apr.shards.reader import ShardReader
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.batches import TokenRows
from apr.train.checkpoint import checkpoint_dir, load_checkpoint, require_verified
from apr.train.config import TrainConfig
from apr.train.loss import summed_loss
from apr.train.optimizer import build_optimizer
from apr.train.validation import validate, whole_set


@pytest.fixture(scope="module")
def finished(run_data: RunData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("f36") / "run"
    pretrain(run_data.config(run_dir, num_steps=2))
    return run_dir


def test_a_weight_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    model = tiny_model()
    save_model(tmp_path / "good.apr", model, tokenizer=None, provenance=[])
    with torch.no_grad():
        model.get_parameter("model.norm.weight")[3] = float("nan")
    with pytest.raises(Refusal) as refused:
        save_model(tmp_path / "bad.apr", model, tokenizer=None, provenance=[])
    assert refused.value.id == "model.non-finite"
    assert [path.name for path in tmp_path.iterdir()] == ["good.apr"]


def test_a_model_without_a_tokenizer_does_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tmp_path / "m.apr", tiny_model(), tokenizer=None, provenance=[])
    assert run(["run", str(tmp_path / "m.apr"), "x", "--json"]) == 5
    assert json.loads(capsys.readouterr().out)["refused"]["id"] == "run.no-tokenizer"


def test_a_held_out_loss_that_is_not_finite_is_refused(run_data: RunData) -> None:
    shards = ShardReader.open(run_data.val)
    held_out = whole_set(
        TokenRows(shards, 0, shards.num_tokens, 64), Tokenizer.load(run_data.tokenizer)
    )
    model = Transformer(preset("tiny", tokenizer_vocab_size=512))
    initialize(model, seed=0)
    options = {"batch_size": 8, "document_mask": True, "summed_loss": summed_loss}
    assert validate(model, held_out, **options).loss_nats > 0
    with torch.no_grad():
        model.get_parameter("model.norm.weight").fill_(float("nan"))
    with pytest.raises(Refusal) as refused:
        validate(model, held_out, **options)
    assert refused.value.id == "train.non-finite-validation"


def test_a_checkpoint_of_another_model_is_refused(finished: Path) -> None:
    config = TrainConfig.model_validate(json.loads((finished / "run.json").read_text())["config"])
    directory = finished / "checkpoints" / "step-00000002"
    same = load_model(directory / "model.apr").model
    assert load_checkpoint(directory, same, build_optimizer(same, config)).step == 2
    other = tiny_model()
    with pytest.raises(Refusal) as refused:
        load_checkpoint(directory, other, build_optimizer(other, config))
    assert refused.value.id == "checkpoint.other-model"


@pytest.mark.parametrize(
    "damage", ["flip", "cut", "extra", "gone", "unlisted", "not-json", "no-facts"]
)
def test_a_checkpoint_is_exactly_its_list(finished: Path, tmp_path: Path, damage: str) -> None:
    directory = tmp_path / "step-00000002"
    directory.mkdir()
    for file in (finished / "checkpoints" / "step-00000002").iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    require_verified(directory)
    state = directory / "state.safetensors"
    data = state.read_bytes()
    if damage == "flip":
        state.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    elif damage == "cut":
        state.write_bytes(data[:-4])
    elif damage == "extra":
        (directory / "state.pkl").write_bytes(b"x")
    elif damage == "gone":
        state.unlink()
    elif damage == "unlisted":
        (directory / "checkpoint.json").unlink()
    elif damage == "not-json":
        (directory / "checkpoint.json").write_text("{")
    else:
        listing = json.loads((directory / "checkpoint.json").read_text())
        listing["files"]["state.json"] = 7
        (directory / "checkpoint.json").write_text(json.dumps(listing))
    with pytest.raises(DamagedFile) as refused:
        require_verified(directory)
    assert refused.value.id == "checkpoint.damaged"


def test_a_run_that_is_no_demo_is_not_shown_as_one(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["demo", "-o", str(finished), "--json"]) == 5
    assert json.loads(capsys.readouterr().out)["refused"]["id"] == "demo.another-run"


def _say_that_step_2_was_the_best(checkpoint: Path) -> None:
    state = json.loads((checkpoint / "state.json").read_text())
    state |= {"best_step": 2, "best_loss_nats": 4.0}
    (checkpoint / "state.json").write_text(json.dumps(state))
    listing = json.loads((checkpoint / "checkpoint.json").read_text())
    listing["files"]["state.json"] = {
        "size_bytes": (checkpoint / "state.json").stat().st_size,
        "sha256": sha256_file(checkpoint / "state.json"),
    }
    (checkpoint / "checkpoint.json").write_text(json.dumps(listing))


@pytest.mark.parametrize("is_damaged", [True, False])
def test_a_run_whose_best_checkpoint_is_damaged_ends_with_its_last_and_says_so(
    run_data: RunData, tmp_path: Path, is_damaged: bool
) -> None:
    run_dir, asked = tmp_path / "run", iter(range(7))
    with pytest.raises(Interrupted):
        pretrain(
            run_data.config(run_dir, keep=9),
            listener=Listener(should_stop=lambda: next(asked, None) is None),
        )
    _say_that_step_2_was_the_best(checkpoint_dir(run_dir, 6))
    if is_damaged:
        with (checkpoint_dir(run_dir, 2) / "model.apr").open("r+b") as file:
            file.seek(-5000, 2)
            file.write(b"\1\2\3")
    said: list[str] = []
    record = resume(run_dir, listener=Listener(notify=said.append))
    assert record["outcome"] == "budget_exhausted"
    assert record["val"]["best_step"] == 8
    assert (run_dir / "model.apr").is_file()
    assert ("lost_best" in record["val"]) == is_damaged
    assert any("the best so far, is lost" in text for text in said) == is_damaged
