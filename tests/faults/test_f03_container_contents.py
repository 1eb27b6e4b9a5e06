"""F03: tensors dropped, skipped or compared by count.

A container holds the tensors of its architecture, each by its name, shape and type, and no others.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.container_files import Row, build
from tests.container_models import LLAMA, QWEN2, ModelFile, model_file

from apr.architecture import Architecture
from apr.container.contents import require_contents
from apr.container.inspecting.validation import validate
from apr.container.metadata import metadata_from_architecture
from apr.container.reader import Container
from apr.errors import Refusal
from apr.model.weights import load_model

Q_BIAS = "model.layers.1.self_attn.q_proj.bias"
DOWN = "model.layers.0.mlp.down_proj.weight"
EMBEDDING = "model.embed_tokens.weight"


def an_extra_bias(file: ModelFile) -> None:
    file.arrays["model.layers.0.self_attn.o_proj.bias"] = np.zeros(8, "<f4")


def a_bias_missing(file: ModelFile) -> None:
    del file.arrays[Q_BIAS]


def two_dimensions_swapped(file: ModelFile) -> None:
    file.arrays[DOWN] = np.ascontiguousarray(file.arrays[DOWN].T)


def one_tensor_under_two_names(file: ModelFile) -> None:
    file.arrays["model.norm.weight.copy"] = file.arrays["model.norm.weight"]


def a_row_more(file: ModelFile) -> None:
    file.arrays[EMBEDDING] = np.vstack([file.arrays[EMBEDDING], np.zeros((1, 8), "<f4")])


def a_parameter_too_many_claimed(file: ModelFile) -> None:
    file.set(param_count=file.metadata.param_count + 1)


@pytest.mark.parametrize(
    ("architecture", "fault", "id", "found"),
    [
        (LLAMA, an_extra_bias, "container.tensor-unexpected", "o_proj.bias"),
        (QWEN2, a_bias_missing, "container.tensor-missing", Q_BIAS),
        (LLAMA, two_dimensions_swapped, "container.tensor-shape-differs", "[12, 8]"),
        (LLAMA, one_tensor_under_two_names, "container.tensor-unexpected", "copy"),
        (LLAMA, a_row_more, "container.tensor-shape-differs", "[12, 8]"),
        (LLAMA, a_parameter_too_many_claimed, "container.parameter-count", "param_count"),
    ],
)
def test_a_planted_fault(
    tmp_path: Path,
    architecture: Architecture,
    fault: Callable[[ModelFile], None],
    id: str,
    found: str,
) -> None:
    file = model_file(architecture)
    path = file.write(tmp_path / "model.apr")
    with Container.open(path) as container:
        assert require_contents(container) == architecture
        assert len(container.tensors) == len(architecture.parameter_shapes()) > 10
    assert validate(path).verdict == "PASS"
    fault(file)
    file.write(path)
    with pytest.raises(Refusal) as caught, Container.open(path) as container:
        require_contents(container)
    assert (caught.value.id, caught.value.exit_code) == (id, 5)
    assert found in caught.value.found
    model = next(check for check in validate(path).checks if check.id == "container.model")
    assert model.verdict == "FAIL"
    assert id in model.found


def test_a_tensor_of_integers(tmp_path: Path) -> None:
    file = model_file(LLAMA)
    rows = [
        Row(name.encode(), 4 if name == DOWN else 0, array.shape, array.tobytes())
        for name, array in sorted(file.arrays.items())
    ]
    path = tmp_path / "model.apr"
    path.write_bytes(build(file.metadata.encode(), rows))
    with pytest.raises(Refusal) as caught, Container.open(path) as container:
        require_contents(container)
    assert caught.value.id == "container.tensor-dtype"
    assert (caught.value.found, DOWN in caught.value.where) == ("i32", True)


def test_quantised_blocks_are_computed_with_as_the_values_they_stand_for(tmp_path: Path) -> None:
    # 11 x 8 elements are three blocks of 32.
    file = model_file(LLAMA)
    rows = [
        Row(name.encode(), 0, array.shape, array.tobytes())
        for name, array in sorted(file.arrays.items())
    ]
    embedding = next(row for row in rows if row.name == EMBEDDING.encode())
    embedding.code, embedding.data = 128, bytes(3 * 18)
    path = tmp_path / "model.apr"
    path.write_bytes(build(file.metadata.encode(), rows))
    assert validate(path).verdict == "PASS"
    with Container.open(path) as container:
        assert require_contents(container) == LLAMA
    model = load_model(path).model
    assert not model.get_parameter(EMBEDDING).any()
    # A block of a scale of 1 and nibbles of 9: every value is 1.
    embedding.data = 3 * (b"\x00\x3c" + b"\x99" * 16)
    path.write_bytes(build(file.metadata.encode(), rows))
    model = load_model(path).model
    assert (model.get_parameter(EMBEDDING) == 1.0).all()


def test_metadata_is_not_made_for_other_tensors() -> None:
    with pytest.raises(Refusal) as caught:
        metadata_from_architecture(LLAMA, num_parameters=LLAMA.num_parameters + 8, free={})
    assert caught.value.id == "container.parameter-count"


def test_layers_that_only_the_metadata_has(tmp_path: Path) -> None:
    # Refused before the names of a billion layers are listed.
    file = model_file(LLAMA)
    for num_layers in (1, 3, 10**9):
        file.set(num_layers=num_layers)
        path = file.write(tmp_path / "model.apr")
        with pytest.raises(Refusal) as caught, Container.open(path) as container:
            require_contents(container)
        assert caught.value.id == "container.architecture-mismatch"


def test_a_head_width_that_only_the_metadata_has(tmp_path: Path) -> None:
    file = model_file(LLAMA)
    file.set(head_dim=None)
    path = file.write(tmp_path / "model.apr")
    with Container.open(path) as container:
        assert require_contents(container) == LLAMA
    wide = model_file(replace(LLAMA, head_dim=8))
    wide.set(head_dim=None)
    with pytest.raises(Refusal) as caught, Container.open(wide.write(path)) as container:
        require_contents(container)
    assert caught.value.id == "container.tensor-shape-differs"
