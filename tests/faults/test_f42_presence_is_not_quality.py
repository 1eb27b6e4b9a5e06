"""F42: presence scored as quality.

Completeness of metadata and behaviour of the model are two answers: random weights with complete
metadata are complete and not good, a trained model without a licence is good and not complete.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file
from tests.container_models import model_file
from tests.tokenizer_files import tokenizer

from apr import units
from apr.architecture import Architecture, preset
from apr.cli.main import run
from apr.container.embedded_tokenizer import embed_tokenizer
from apr.container.stamp import Claims, stamp
from apr.jobs.quality import describe_quality
from apr.model.init import initialize
from apr.model.transformer import Transformer
from apr.model.weights import save_model
from apr.tokenizer.tokenizer import Tokenizer

COMPLETE = Claims(license="MIT", data_source="nothing", data_license="CC0-1.0")
Captured = pytest.CaptureFixture[str]


def random_model(path: Path, *, scale: float | None = None, **entry: Any) -> Path:
    """A model of random weights with every key that upstream scores."""
    model = Transformer(preset("tiny", tokenizer_vocab_size=tokenizer().vocab_size))
    initialize(model, seed=5)
    if scale is not None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0.0, scale)
    provenance = [{"what": "random weights"} | entry]
    save_model(path, model, tokenizer=tokenizer(), provenance=provenance)
    stamp(path, COMPLETE)
    return path


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {check["id"]: check["verdict"] for check in found["behaviour"]["checks"]}


def test_random_weights_with_complete_metadata_are_not_good(tmp_path: Path) -> None:
    found = describe_quality(random_model(tmp_path / "x.apr"))
    assert (found["quality"]["score"], found["quality"]["ship_ready"]) == (100, True)
    assert found["behaviour"]["verdict"] == "FAIL"
    assert verdicts(found)["held-out-loss"] == "UNKNOWN"
    assert verdicts(found)["generation-not-degenerate"] == "FAIL"


def test_nor_are_they_with_a_loss_that_somebody_wrote_down(tmp_path: Path) -> None:
    found = describe_quality(random_model(tmp_path / "x.apr", val_loss_nats=1.5))
    assert verdicts(found)["held-out-loss"] == "PASS"
    assert found["behaviour"]["verdict"] == "FAIL"


def test_random_weights_of_another_scale_are_not_good_either(tmp_path: Path) -> None:
    found = describe_quality(random_model(tmp_path / "x.apr", scale=1.0))
    assert found["quality"]["score"] == 100
    assert verdicts(found)["text-better-than-guessing"] == "FAIL"
    assert found["behaviour"]["verdict"] == "FAIL"


def test_logits_that_are_no_numbers_fail_though_every_weight_is_one(tmp_path: Path) -> None:
    found = describe_quality(random_model(tmp_path / "x.apr", scale=1e30, val_loss_nats=1.5))
    assert verdicts(found)["values-finite"] == "PASS"
    assert verdicts(found)["text-better-than-guessing"] == "FAIL"
    assert verdicts(found)["generation-not-degenerate"] == "FAIL"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that learned one source file, and says with which loss."""
    torch.manual_seed(0)
    text = Path(units.__file__).read_text()
    ids = torch.from_numpy(tokenizer().encode(text * 2).astype("int64"))
    model = Transformer(preset("tiny", tokenizer_vocab_size=tokenizer().vocab_size))
    initialize(model, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    for _ in range(150):
        starts = torch.randint(len(ids) - 65, (16,)).tolist()
        rows = torch.stack([ids[start : start + 65] for start in starts])
        logits = model(rows[:, :-1]).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("f42") / "model.apr"
    entry = {"what": "best checkpoint of a run", "val_loss_nats": loss.item()}
    save_model(path, model, tokenizer=tokenizer(), provenance=[entry])
    return path


def test_a_trained_model_without_a_licence_is_incomplete_and_not_bad(trained: Path) -> None:
    found = describe_quality(trained)
    assert (found["quality"]["score"], found["quality"]["ship_ready"]) == (75, False)
    assert found["quality"]["missing"] == ["license", "data_source", "data_license"]
    assert found["behaviour"]["verdict"] == "PASS", found["behaviour"]


def test_a_published_model_is_not_degenerate(shared_data: Path, tmp_path: Path) -> None:
    """260K parameters that learned stories: code surprises it, prose does not."""
    source = shared_data / "checkpoints" / "stories260K" / "hf"
    config = json.loads((source / "config.json").read_text())
    fields = {field.name: config[field.name] for field in dataclasses.fields(Architecture)
              if field.name in config and field.name != "rope_scaling"}  # fmt: skip
    width = config["hidden_size"] // config["num_attention_heads"]
    shape = Architecture(**{**fields, "head_dim": width})
    file = model_file(shape, free=embed_tokenizer(Tokenizer.load(source)))
    file.arrays = load_file(source / "model.safetensors")
    found = describe_quality(file.write(tmp_path / "x.apr"))
    assert verdicts(found) == {
        "bytes-intact": "PASS",
        "values-finite": "PASS",
        "no-dead-tensors": "PASS",
        "identity-derived": "PASS",
        "held-out-loss": "UNKNOWN",
        "text-better-than-guessing": "PASS",
        "generation-not-degenerate": "PASS",
    }


def test_both_answers_are_told_apart_in_words(
    trained: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert run(["inspect", str(trained), "--quality", "--quiet"]) == 0
    text = capsys.readouterr().out
    assert "completeness of the metadata: 75 of 100, not ship_ready" in text
    assert "nothing about how the model behaves" in text
    assert "behaviour, as measured: PASS" in text
    assert "best checkpoint of a run" in text
    path = random_model(tmp_path / "x.apr")
    assert run(["inspect", str(path), "--quality", "--quiet"]) == 0
    text = capsys.readouterr().out
    assert "completeness of the metadata: 100 of 100, ship_ready" in text
    assert "behaviour, as measured: FAIL" in text


def test_a_damaged_model_is_not_run(tmp_path: Path, capsys: Captured) -> None:
    path = random_model(tmp_path / "x.apr")
    data = path.read_bytes()
    path.write_bytes(data[:-100] + bytes([data[-100] ^ 1]) + data[-99:])
    assert run(["inspect", str(path), "--quality", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["behaviour"]["verdict"] == "FAIL"
    assert verdicts(found)["bytes-intact"] == "FAIL"
    assert verdicts(found)["generation-not-degenerate"] == "UNKNOWN"


def test_what_is_not_asked_for_is_not_claimed(tmp_path: Path, capsys: Captured) -> None:
    path = random_model(tmp_path / "x.apr")
    assert run(["inspect", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys().isdisjoint({"quality", "behaviour"})
