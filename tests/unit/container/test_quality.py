"""Completeness part by part, and what is measured without a model, each with its fault."""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.container_files import GOLDEN, Row, build, f32
from tests.container_models import LLAMA, QWEN2, ModelFile, hashes, model_file

from apr.container.contents import EMBEDDING
from apr.container.inspecting.quality import Behaviour, Measured, completeness, stored_behaviour
from apr.container.reader import Container
from apr.container.stamp import Claims, stamp

WORDS = [f"word{number}" for number in range(LLAMA.vocab_size)]
TRAINED = {"what": "best checkpoint of a run", "val_loss_nats": 1.25, "val_num_tokens": 900}


def complete(**free: Any) -> ModelFile:
    file = model_file(free={"tokenizer.vocabulary": WORDS, "tokenizer.merges": []} | free)
    file.set(license="MIT", data_source="x", data_license="CC0-1.0")
    return file


def quality_of(path: Path) -> dict[str, Any]:
    with Container.open(path) as container:
        return completeness(container)


def measured(path: Path) -> dict[str, Measured]:
    with Container.open(path) as container:
        checks = list(stored_behaviour(container))
    assert len(checks) == 5
    assert all(check.found and check.expected for check in checks)
    return {check.id: check for check in checks}


def verdicts(path: Path) -> dict[str, str]:
    return {id: check.verdict for id, check in measured(path).items()}


SOUND = {
    "bytes-intact": "PASS",
    "values-finite": "PASS",
    "no-dead-tensors": "PASS",
    "identity-derived": "PASS",
    "held-out-loss": "PASS",
}


def test_a_complete_file(tmp_path: Path) -> None:
    assert quality_of(complete().write(tmp_path / "x.apr")) == {
        "score": 100,
        "ship_ready": True,
        "threshold": 90,
        "breakdown": {
            "integrity": 20,
            "structure": 20,
            "provenance": 25,
            "hf_identity": 20,
            "tokenizer": 15,
        },
        "missing": [],
    }


@pytest.mark.parametrize(
    ("keys", "part", "score"),
    [
        ({"architecture": None}, "structure", 80),
        ({"hidden_size": None}, "structure", 80),
        ({"num_layers": None}, "structure", 80),
        ({"num_heads": None}, "structure", 80),
        ({"license": None}, "provenance", 75),
        ({"license": " "}, "provenance", 75),
        ({"data_source": None}, "provenance", 75),
        ({"data_license": None}, "provenance", 75),
        ({"hf_architecture": None}, "hf_identity", 80),
        ({"hf_model_type": ""}, "hf_identity", 80),
    ],
)
def test_a_part_counts_whole_or_not_at_all(
    tmp_path: Path, keys: dict[str, Any], part: str, score: int
) -> None:
    file = complete()
    file.set(**keys)
    found = quality_of(file.write(tmp_path / "x.apr"))
    assert (found["score"], found["ship_ready"]) == (score, False)
    assert found["breakdown"][part] == 0
    assert found["missing"] == [*keys]


def test_a_vocabulary_must_be_usable_and_flagged(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    assert quality_of(complete(**{"tokenizer.vocab_size": 12}).write(path))["score"] == 85
    assert quality_of(model_file().write(path))["breakdown"]["tokenizer"] == 0
    vocabulary = {"tokenizer.vocabulary": ["a"]}
    for flags, points in ((0x0400, 0), (0x0600, 15)):
        path.write_bytes(build(vocabulary, [f32("w", 1.0)], flags=flags))
        assert quality_of(path)["breakdown"]["tokenizer"] == points


def test_a_sound_model(tmp_path: Path) -> None:
    file = complete(**{"apr.provenance": [TRAINED]})
    file.set_free(hashes(file.arrays))
    path = file.write(tmp_path / "x.apr")
    assert verdicts(path) == SOUND
    assert "1.2500 nats per token over 900 tokens" in measured(path)["held-out-loss"].found
    assert "20 tensors by sha256" in measured(path)["bytes-intact"].found
    # A stamp leaves the weights, and with them what was measured of them.
    stamp(path, Claims(name="x"))
    assert verdicts(path) == SOUND


def test_damaged_bytes(tmp_path: Path) -> None:
    path = complete(**{"apr.provenance": [TRAINED]}).write(tmp_path / "x.apr")
    sound = path.read_bytes()
    path.write_bytes(sound[:-100] + bytes([sound[-100] ^ 1]) + sound[-99:])
    assert verdicts(path) == SOUND | {"bytes-intact": "FAIL"}
    path.write_bytes(sound[:-4])
    assert verdicts(path) == SOUND | {"bytes-intact": "UNKNOWN"}
    rows = [f32("a", 1.0)]
    for recorded in ({"a": "0" * 64}, {"b": "0" * 64}, "text"):
        path.write_bytes(build({"apr.tensor_sha256": recorded}, rows))
        assert verdicts(path)["bytes-intact"] == "FAIL"


def planted(path: Path, name: str, array: np.ndarray[Any, Any], **options: Any) -> dict[str, str]:
    file = complete(**{"apr.provenance": [TRAINED]}, **options)
    file.arrays[name] = array.astype("<f4")
    return verdicts(file.write(path))


def test_a_value_that_is_none(tmp_path: Path) -> None:
    norm = np.full(8, np.nan)
    found = planted(tmp_path / "x.apr", "model.norm.weight", norm)
    assert found == SOUND | {"values-finite": "FAIL"}


def test_a_dead_tensor(tmp_path: Path) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    found = planted(tmp_path / "x.apr", name, np.zeros((8, 12)))
    assert found == SOUND | {"no-dead-tensors": "FAIL"}
    almost = np.zeros((8, 12))
    almost[3, 3] = 1e-30
    assert planted(tmp_path / "x.apr", name, almost) == SOUND


@pytest.mark.parametrize(
    ("num_zero_rows", "num_zero_columns", "verdict"),
    [(0, 0, "PASS"), (2, 0, "PASS"), (3, 0, "FAIL"), (0, 3, "PASS"), (0, 4, "FAIL")],
)
def test_an_embedding_with_holes(
    tmp_path: Path, num_zero_rows: int, num_zero_columns: int, verdict: str
) -> None:
    embedding = np.ones((11, 8))
    embedding[:num_zero_rows] = 0
    embedding[:, :num_zero_columns] = 0
    found = planted(tmp_path / "x.apr", EMBEDDING, embedding)
    assert found == SOUND | {"no-dead-tensors": verdict}


def test_biases_of_a_fresh_model_are_listed_and_no_fault(tmp_path: Path) -> None:
    file = model_file(QWEN2)
    for name in file.arrays:
        if name.endswith(".bias"):
            file.arrays[name] = np.zeros_like(file.arrays[name])
    check = measured(file.write(tmp_path / "x.apr"))["no-dead-tensors"]
    assert check.verdict == "PASS"
    assert "model.layers.0.self_attn.q_proj.bias" in check.found
    assert "and 2 more zero" in check.found


def test_quantised_tensors_are_judged_by_what_they_stand_for(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    alive = struct.pack("<f4b", 0.5, 0, 0, 1, 0)
    path.write_bytes(build({}, [f32("a", 1.0), Row(b"b", 129, (4,), alive)]))
    assert verdicts(path)["no-dead-tensors"] == "PASS"
    # A scale of 0.5, and no value but zeros.
    dead = struct.pack("<f4b", 0.5, 0, 0, 0, 0)
    path.write_bytes(build({}, [f32("a", 1.0), Row(b"b", 129, (4,), dead)]))
    check = measured(path)["no-dead-tensors"]
    assert (check.verdict, check.found) == ("FAIL", "b only zeros")


def test_an_identity_that_is_not_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    for keys, verdict in (
        ({"hf_architecture": "Qwen2ForCausalLM"}, "FAIL"),
        ({"hf_model_type": None}, "FAIL"),
        ({"num_layers": 1}, "FAIL"),
        ({"hf_model_type": "mamba"}, "UNKNOWN"),
    ):
        file = complete(**{"apr.provenance": [TRAINED]})
        file.set(**keys)
        assert verdicts(file.write(path)) == SOUND | {"identity-derived": verdict}


@pytest.mark.parametrize(
    ("entries", "verdict"),
    [
        ([], "UNKNOWN"),
        ([{"what": "checkpoint"}], "UNKNOWN"),
        ([TRAINED, {"what": "stamp"}], "PASS"),
        # Whatever came later made other weights.
        ([TRAINED, {"what": "checkpoint"}], "UNKNOWN"),
        ([TRAINED, {"what": "import"}, {"what": "stamp"}], "UNKNOWN"),
        ([TRAINED | {"val_loss_nats": math.log(11) + 0.01}], "FAIL"),
        ([TRAINED | {"val_loss_nats": math.log(11) - 0.01}], "PASS"),
        ([TRAINED | {"val_loss_nats": 0.0}], "FAIL"),
        ([TRAINED | {"val_loss_nats": -1}], "FAIL"),
        ([TRAINED | {"val_loss_nats": True}], "FAIL"),
        ([TRAINED | {"val_loss_nats": "1.0"}], "FAIL"),
        ("text", "UNKNOWN"),
    ],
)
def test_a_recorded_loss(tmp_path: Path, entries: Any, verdict: str) -> None:
    path = complete(**{"apr.provenance": entries}).write(tmp_path / "x.apr")
    assert verdicts(path) == SOUND | {"held-out-loss": verdict}


def test_nothing_to_measure_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    path.write_bytes(build({}))
    assert set(verdicts(path).values()) == {"PASS", "UNKNOWN"}
    assert verdicts(path)["bytes-intact"] == "PASS"
    assert Behaviour(()).verdict == "UNKNOWN"
    path.write_bytes(GOLDEN)
    assert verdicts(path)["identity-derived"] == "UNKNOWN"


@pytest.mark.parametrize(
    ("verdicts", "worst"),
    [
        (["PASS", "PASS"], "PASS"),
        (["PASS", "UNKNOWN"], "UNKNOWN"),
        (["UNKNOWN", "FAIL", "PASS"], "FAIL"),
    ],
)
def test_the_worst_verdict_counts(verdicts: list[Any], worst: str) -> None:
    checks = tuple(Measured("x", verdict, "a", "b") for verdict in verdicts)
    assert Behaviour(checks).verdict == worst
