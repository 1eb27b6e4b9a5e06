"""A skipped step comes back as it was written, and damage to it is refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from tests.unit.train.batch_fixture import random_batch, tiny_model

from apr.architecture import Architecture
from apr.errors import Refusal
from apr.files import sha256_file
from apr.train.skipped_step import (
    SkippedFacts,
    load_skipped_step,
    save_skipped_step,
    skipped_step_dir,
)


def facts(**changes: Any) -> SkippedFacts:
    values: dict[str, Any] = {
        "step": 7,
        "loss_nats": 2.5,
        "grad_norm": math.inf,
        "rows": [0, 1, 2, 3],
        "precision": "fp32",
        "document_mask": True,
        "grad_accum": 2,
        "what": "gradient norm not finite",
    }
    return SkippedFacts(**(values | changes))


def tiny_parts() -> tuple[Architecture, dict[str, torch.Tensor]]:
    model = tiny_model()
    return model.architecture, dict(model.named_parameters())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    directory = skipped_step_dir(tmp_path, 7)
    save_skipped_step(directory, *tiny_parts(), None, random_batch(), facts(), [{"what": "x"}])
    return directory


def test_what_was_written_comes_back(saved: Path) -> None:
    assert saved.name == "step-00000007"
    read, batch, model = load_skipped_step(saved), random_batch(), tiny_model()
    assert read.facts == facts()
    for part in ("input_ids_BT", "target_ids_BT", "document_numbers_BT"):
        assert np.array_equal(getattr(read.batch, part), getattr(batch, part))
    assert read.batch.row_indices == (0, 1, 2, 3)
    assert len(list(model.parameters())) > 10
    for name, parameter in model.named_parameters():
        assert read.model.get_parameter(name).equal(parameter)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3.25])
def test_values_that_json_cannot_hold(tmp_path: Path, value: float) -> None:
    save_skipped_step(
        tmp_path / "s", *tiny_parts(), None, random_batch(), facts(loss_nats=value), []
    )
    written = json.loads((tmp_path / "s" / "skipped.json").read_text())["loss_nats"]
    assert written == (value if math.isfinite(value) else str(value))
    assert str(load_skipped_step(tmp_path / "s").facts.loss_nats) == str(value)


def test_a_step_skipped_again_takes_the_place_of_the_older_one(saved: Path) -> None:
    save_skipped_step(saved, *tiny_parts(), None, random_batch(), facts(what="again"), [])
    assert load_skipped_step(saved).facts.what == "again"
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def _remove(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def _flip(name: str) -> Callable[[Path], None]:
    def flip(directory: Path) -> None:
        data = bytearray((directory / name).read_bytes())
        data[-9] ^= 1
        (directory / name).write_bytes(data)

    return flip


def _say(**changes: Any) -> Callable[[Path], None]:
    def say(directory: Path) -> None:
        path = directory / "skipped.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return say


def _other_batch(**changes: Any) -> Callable[[Path], None]:
    """A batch that its own list vouches for, and that is none all the same."""

    def replace(directory: Path) -> None:
        batch, path = random_batch(), directory / "batch.safetensors"
        arrays = {
            "input_ids_BT": batch.input_ids_BT,
            "target_ids_BT": batch.target_ids_BT,
            "document_numbers_BT": batch.document_numbers_BT,
        } | changes
        save_file({name: array for name, array in arrays.items() if array is not None}, path)
        listing = json.loads((directory / "skipped.json").read_text())["files"]
        listing[path.name] = {"size_bytes": path.stat().st_size, "sha256": sha256_file(path)}
        _say(files=listing)(directory)

    return replace


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no model": (_remove("model.apr"), "model.apr is not there"),
    "no batch": (_remove("batch.safetensors"), "batch.safetensors is not there"),
    "model flipped": (_flip("model.apr"), "model.apr is not the file that was written"),
    "batch flipped": (_flip("batch.safetensors"), "batch.safetensors is not the file"),
    "schema": (_say(schema="x"), "schema"),
    "unlisted": (_say(files={}), "does not list"),
    "a word": (_say(loss_nats="none"), "loss_nats"),
    "a boolean": (_say(step=True), "step"),
    "a new field": (_say(planted=1), "planted"),
    "precision": (_say(precision="fp8"), "precision"),
    "rows": (_say(rows=[1]), "for 1 rows"),
    "parts": (_say(grad_accum=3), "3 does not divide"),
    "a tensor less": (_other_batch(target_ids_BT=None), "target_ids_BT"),
    "a tensor more": (_other_batch(planted=np.zeros(3)), "other tensors"),
    "narrow ids": (_other_batch(input_ids_BT=np.zeros((4, 16), np.int32)), "other tensors"),
    "shapes": (_other_batch(input_ids_BT=np.zeros((4, 15), np.int64)), "other tensors"),
    "no row of its own": (_other_batch(input_ids_BT=np.full((4, 16), 61)), "ids 61 to 61"),
    "no target": (_other_batch(target_ids_BT=np.full((4, 16), -100)), "no target that counts"),
    "a negative target": (_other_batch(target_ids_BT=np.full((4, 16), -1)), "ids -1 to -1"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused(saved: Path, damage: str) -> None:
    harm, found = DAMAGE[damage]
    load_skipped_step(saved)
    harm(saved)
    with pytest.raises(Refusal) as refused:
        load_skipped_step(saved)
    assert refused.value.id == "skipped.damaged"
    assert refused.value.exit_code == 4
    assert found in refused.value.found


@pytest.mark.parametrize("name", ["", "skipped.json"])
def test_what_is_not_there_is_refused(saved: Path, name: str) -> None:
    directory = saved if name else saved / "nowhere"
    if name:
        (saved / name).unlink()
    with pytest.raises(Refusal) as refused:
        load_skipped_step(directory)
    assert refused.value.id == "files.not-found"
