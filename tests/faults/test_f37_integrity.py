"""F37: integrity that covers only the header.

Every byte of the file is covered, and so is the place of every tensor: damage anywhere is refused
before a model is built from it.
"""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.container_files import GOLDEN, build, f32, one_bit_flipped
from tests.container_models import hashes, model_file

from apr.container import free_keys
from apr.container.inspecting.validation import validate
from apr.container.reader import Container
from apr.errors import Refusal


def array(*values: float) -> NDArray[np.float32]:
    return np.array(values, "<f4")


def verify(path: Path) -> None:
    with Container.open(path) as container:
        container.verify()


def with_hashes(path: Path) -> Path:
    file = model_file()
    file.set_free(hashes(file.arrays))
    return file.write(path)


def test_the_harmless_twin_is_verified(tmp_path: Path) -> None:
    path = with_hashes(tmp_path / "model.apr")
    with Container.open(path) as container:
        integrity = container.verify()
    assert integrity.size_bytes == path.stat().st_size
    assert integrity.num_tensors_hashed == integrity.num_tensors == len(model_file().arrays)
    assert validate(path).verdict == "PASS"


def test_one_bit_in_each_kind_of_byte(tmp_path: Path) -> None:
    path = with_hashes(tmp_path / "model.apr")
    with Container.open(path) as container:
        places = {extent.owner: extent.start for extent in container.sections.extents}
        places |= {"footer": container.sections.end_of_data}
    assert set(places) == {"header", "metadata", "index", "tensor", "padding", "footer"}
    sound = path.read_bytes()
    for owner, at in places.items():
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 0x10]) + sound[at + 1 :])
        with pytest.raises(Refusal) as caught:
            verify(path)
        assert caught.value.exit_code == 4, owner
    path.write_bytes(sound)
    verify(path)


def test_validate_sees_every_flipped_bit(tmp_path: Path) -> None:
    path = tmp_path / "golden.apr"
    path.write_bytes(GOLDEN)
    assert validate(path).verdict == "PASS"
    refused = judged = 0
    for at, damaged in one_bit_flipped(GOLDEN):
        path.write_bytes(damaged)
        try:
            verdict = validate(path).verdict
        except Refusal:
            refused += 1
        else:
            judged += 1
            assert verdict == "FAIL", at
    assert refused > 100
    assert judged > 100


def test_four_bytes_fewer_or_more(tmp_path: Path) -> None:
    path = with_hashes(tmp_path / "model.apr")
    sound = path.read_bytes()
    for damaged, id in (
        (sound[:-4], "container.footer-missing"),
        (sound + bytes(4), "container.length"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(Refusal) as caught:
            verify(path)
        assert caught.value.id == id


def test_a_missing_footer_is_unknown_and_blocks(tmp_path: Path) -> None:
    path = tmp_path / "golden.apr"
    path.write_bytes(GOLDEN[:-4])
    validation = validate(path)
    assert {c.id: c.verdict for c in validation.checks}["container.footer"] == "UNKNOWN"
    assert validation.verdict == "UNKNOWN"


def test_two_tensors_that_changed_places(tmp_path: Path) -> None:
    rows = [f32("a", 1.0, 2.0), f32("b", 3.0, 4.0)]
    recorded = hashes({"a": array(1.0, 2.0), "b": array(3.0, 4.0)})
    path = tmp_path / "model.apr"
    path.write_bytes(build(recorded, rows))
    verify(path)
    rows[0].offset, rows[1].offset = 64, 0
    path.write_bytes(build(recorded, rows))
    with pytest.raises(Refusal) as caught:
        verify(path)
    assert caught.value.id == "container.tensor-sha256-mismatch"
    assert "tensor 'a'" in caught.value.where
    assert validate(path).verdict == "FAIL"


@pytest.mark.parametrize("change", ["dropped", "added", "renamed"])
def test_recorded_hashes_name_every_tensor_and_no_other(tmp_path: Path, change: str) -> None:
    recorded = hashes({"a": array(1.0), "b": array(2.0)})
    named = recorded[free_keys.TENSOR_SHA256]
    if change == "added":
        named["c"] = named["a"]
    else:
        sha256 = named.pop("b")
        named |= {"B": sha256} if change == "renamed" else {}
    path = tmp_path / "model.apr"
    path.write_bytes(build(recorded, [f32("a", 1.0), f32("b", 2.0)]))
    with pytest.raises(Refusal) as caught:
        verify(path)
    assert caught.value.id == "container.tensor-sha256-incomplete"
    assert validate(path).verdict == "FAIL"


@pytest.mark.parametrize("value", [[], "x", {"a": 7}, {"a": "00"}, {"a": "G" * 64}])
def test_recorded_hashes_that_are_none(tmp_path: Path, value: object) -> None:
    path = tmp_path / "model.apr"
    path.write_bytes(build({free_keys.TENSOR_SHA256: value}, [f32("a", 1.0)]))
    with pytest.raises(Refusal) as caught:
        verify(path)
    assert caught.value.id == "container.metadata-value"
