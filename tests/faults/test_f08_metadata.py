"""F08: metadata wiped or misread by its own rules.

What would make the Rust serving crate drop all metadata is refused on reading, never written, and
named by `validate` where older files may hold it.
"""

from pathlib import Path
from typing import Any

import pytest
from tests.container_files import build, f32
from tests.container_models import model_file, source

from apr.container.inspecting.validation import validate
from apr.container.named_keys import Metadata
from apr.container.reader import Container
from apr.container.writer import write_container
from apr.errors import Refusal

ROWS = [f32("a", 1.0)]


def refusal_on_reading(path: Path, metadata: bytes | dict[str, Any]) -> Refusal:
    path.write_bytes(build(metadata, ROWS))
    with pytest.raises(Refusal) as caught:
        Container.open(path)
    return caught.value


def test_two_spellings_with_two_values(tmp_path: Path) -> None:
    refusal = refusal_on_reading(tmp_path / "x", {"num_layers": 2, "num_hidden_layers": 3})
    assert refusal.id == "container.metadata-alias"
    assert "num_layers=2" in refusal.found
    assert "num_hidden_layers=3" in refusal.found


@pytest.mark.parametrize("second", [1e-6, None])
def test_two_spellings_of_one_value_are_read_and_reported(
    tmp_path: Path, second: float | None
) -> None:
    path = tmp_path / "x.apr"
    path.write_bytes(build({"rms_norm_eps": 1e-6, "norm_eps": second}, ROWS))
    with Container.open(path) as container:
        assert container.metadata.rms_norm_eps == 1e-6
        assert container.metadata.free == {}
    failed = [check for check in validate(path).checks if check.verdict == "FAIL"]
    assert [check.id for check in failed] == ["container.spelling"]
    assert failed[0].found == "rms_norm_eps and norm_eps"


def test_one_foreign_spelling_is_moved(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    path.write_bytes(build({"n_layer": 2, "d_model": 64, "norm_eps": 1e-6}, ROWS))
    with Container.open(path) as container:
        assert container.metadata == Metadata(num_layers=2, hidden_size=64, rms_norm_eps=1e-6)
    assert validate(path).checks[-1].id == "container.model"


@pytest.mark.parametrize(
    ("text", "id"),
    [
        (b'{"hidden_size":896.0}', "container.metadata-value"),
        (b'{"rope_theta":NaN}', "container.metadata-not-json"),
        (b'{"hidden_size":-0}', "container.metadata-value"),
        (b'{"num_layers":2,"num_layers":2}', "container.metadata-not-json"),
        (b'{"model_type":null}', "container.metadata-value"),
        (b'{"model_type":"x"}\0\0', "container.metadata-not-json"),
    ],
)
def test_values_that_wipe_metadata(tmp_path: Path, text: bytes, id: str) -> None:
    refusal = refusal_on_reading(tmp_path / "x.apr", text)
    assert (refusal.id, refusal.exit_code) == (id, 4)


def test_the_harmless_twins(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    for text in (b'{"hidden_size":896}', b'{"rope_theta":1e6}', b'{"rope_theta":10000}', b"{}"):
        path.write_bytes(build(text, ROWS))
        assert validate(path).checks[0].verdict == "PASS"


@pytest.mark.parametrize(
    "raw",
    [
        {"num_layers": 2, "num_hidden_layers": 2},
        {"num_layers": 2, "num_hidden_layers": None},
        {"num_hidden_layers": 2},
    ],
)
def test_the_writer_never_writes_a_second_spelling(tmp_path: Path, raw: dict[str, Any]) -> None:
    path = tmp_path / "x.apr"
    with pytest.raises(Refusal) as caught:
        write_container(path, metadata=Metadata.model_validate(raw), tensors=[])
    assert caught.value.id == "container.read-back"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["num_layers", "num_hidden_layers", "d_model", "license"])
def test_a_free_key_cannot_shadow_a_named_one(key: str) -> None:
    with pytest.raises(Refusal) as caught:
        Metadata().with_free({"apr.fine": 1, key: 2})
    assert caught.value.id == "container.metadata-key"
    assert caught.value.found == key


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1, 2}, "\ud800", nested(2000)], ids=lambda _: "value"
)
def test_the_writer_refuses_what_json_cannot_hold(tmp_path: Path, value: object) -> None:
    path = tmp_path / "x.apr"
    with pytest.raises(Refusal) as caught:
        write_container(path, metadata=Metadata().with_free({"apr.x": value}), tensors=[])
    assert caught.value.id == "container.metadata-value"
    assert list(tmp_path.iterdir()) == []


def test_nesting_the_rust_reader_gives_up_on_is_not_written(tmp_path: Path) -> None:
    metadata = Metadata().with_free({"apr.x": nested(200)})
    with pytest.raises(Refusal) as caught:
        write_container(tmp_path / "x", metadata=metadata, tensors=[])
    assert caught.value.id == "container.read-back"
    assert "container.metadata-not-json" in caught.value.found


def test_nulls_are_written_for_the_three_provenance_keys_only() -> None:
    text = model_file().metadata.encode()
    assert text.count(b"null") == 3
    for key in (b"license", b"data_source", b"data_license"):
        assert b'"' + key + b'":null' in text


def test_a_recorded_hash_that_the_data_does_not_have_is_not_written(tmp_path: Path) -> None:
    file = model_file()
    file.set_free({"apr.tensor_sha256": dict.fromkeys(file.arrays, "0" * 64)})
    path = tmp_path / "x.apr"
    with pytest.raises(Refusal) as caught:
        write_container(
            path,
            metadata=file.metadata,
            tensors=[source(key, array) for key, array in file.arrays.items()],
        )
    assert caught.value.id == "container.read-back"
    assert "container.tensor-sha256-mismatch" in caught.value.found
    assert list(tmp_path.iterdir()) == []
