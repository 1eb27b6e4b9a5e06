"""The reference against transformers: the same logits from the same file, by code of neither."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.hf_load import load, logits
from tests.hf_models import HfModel
from tests.source_models import ARCHITECTURES, LLAMA, adjacent_rows, random_arrays, tensors

from apr.architecture import Architecture
from apr.convert.huggingface.source import read_hf_source
from apr.convert.reference import Reference
from apr.convert.source import Source
from apr.convert.weights import Weights

IDS = np.array([[5, 1, 96, 31, 7, 90, 0, 3, 3, 42, 11, 64]], np.intp)


def computed(reference: Reference) -> np.ndarray:
    """Logits by the reference alone."""
    x_BTD = reference.embed(IDS)
    for number in range(reference.config.num_hidden_layers):
        *_, (_, x_BTD) = reference.layer(number, x_BTD)
    head = reference.weights.whole(reference.head_name)
    return (reference.final_norm(x_BTD) @ head.T)[0]


def read(architecture: Architecture, directory: Path) -> Source:
    config = architecture.to_hf_config() | {"bos_token_id": None, "eos_token_id": None}
    return read_hf_source(HfModel(config, dict(random_arrays(architecture))).write(directory))


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_it_computes_what_transformers_does(tmp_path: Path, architecture: Architecture) -> None:
    source = read(architecture, tmp_path / "m")
    found = computed(Reference(source.reference, Weights(source.stored)))
    loaded = load(tmp_path / "m")
    assert loaded.said == []
    expected = logits(loaded.model, IDS[0].tolist()).numpy()
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def with_config(**fields: Any) -> Callable[[Reference], Reference]:
    return lambda good: replace(good, config=replace(good.config, **fields))


@pytest.mark.parametrize(
    "fault",
    [
        with_config(rope_theta=10_000.0),
        with_config(rms_norm_eps=1e-3),
        with_config(rotary_pairs="adjacent"),
        with_config(num_hidden_layers=2),
        with_config(rope_factors=(2.0, 1.0, 1.0, 1.0)),
    ],
)
def test_another_configuration_computes_something_else(
    tmp_path: Path, fault: Callable[[Reference], Reference]
) -> None:
    source = read(LLAMA, tmp_path / "m")
    sound = Reference(source.reference, Weights(source.stored))
    difference = np.abs(computed(fault(sound)) - computed(sound)).max()
    assert difference > 1e-3


def test_rows_in_adjacent_pairs_are_the_same_model(tmp_path: Path) -> None:
    """Llama's own order of rows with its own pairs, as GGUF has both."""
    source = read(LLAMA, tmp_path / "m")
    arrays = dict(random_arrays(LLAMA))
    for name in arrays:
        heads = {"q_proj.weight": 4, "k_proj.weight": 2}.get(".".join(name.split(".")[-2:]))
        if heads:
            arrays[name] = adjacent_rows(heads)(arrays[name])
    halves = Reference(source.reference, Weights(source.stored))
    pairs = Reference(replace(source.reference, rotary_pairs="adjacent"), Weights(tensors(arrays)))
    np.testing.assert_allclose(computed(pairs), computed(halves), rtol=1e-5, atol=1e-6)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert np.array_equal(pairs.in_halves(arrays[name]), random_arrays(LLAMA)[name])
    assert np.array_equal(halves.in_halves(arrays[name]), arrays[name])
