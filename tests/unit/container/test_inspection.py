import json
from pathlib import Path

from tests.container_files import GOLDEN, build, f32
from tests.container_models import LLAMA, QWEN2, hashes, model_file

from apr.container.inspecting.inspection import describe
from apr.container.stamp import Claims, stamp

KEYS = {
    "path",
    "format",
    "metadata",
    "architecture",
    "architecture_reason",
    "num_parameters",
    "tensors",
    "tokenizer",
    "provenance",
    "integrity",
}


def test_a_file_without_a_model(tmp_path: Path) -> None:
    path = tmp_path / "golden.apr"
    path.write_bytes(GOLDEN)
    found = describe(path)
    assert set(found) == KEYS
    assert found["architecture"] is None
    assert found["architecture_reason"]
    assert found["tokenizer"] is None
    assert found["num_parameters"] == 10
    assert found["format"]["version"] == "2.0"
    assert found["tensors"][1] == {
        "name": "b.weight",
        "dtype": "f32",
        "shape": [2, 3],
        "offset": 64,
        "size_bytes": 24,
        "sha256": None,
    }


def test_a_model(tmp_path: Path) -> None:
    file = model_file(QWEN2)
    recorded = hashes(file.arrays)
    file.set_free(recorded)
    found = describe(file.write(tmp_path / "x.apr"))
    assert found["architecture"]["model_type"] == "qwen2"
    assert found["architecture"]["num_key_value_heads"] == 1
    assert found["architecture"]["attention_bias"] is True
    assert found["architecture_reason"] is None
    assert found["num_parameters"] == QWEN2.num_parameters
    assert {t["name"]: t["sha256"] for t in found["tensors"]} == recorded["apr.tensor_sha256"]
    json.dumps(found, allow_nan=False)


def test_parameters_are_counted_from_the_tensors(tmp_path: Path) -> None:
    file = model_file(LLAMA)
    file.set(param_count=1)
    assert describe(file.write(tmp_path / "x"))["num_parameters"] == LLAMA.num_parameters


def test_an_architecture_that_does_not_hold_is_not_shown(tmp_path: Path) -> None:
    file = model_file(LLAMA)
    file.set(hf_architecture="Qwen2ForCausalLM")
    found = describe(file.write(tmp_path / "x.apr"))
    assert found["architecture"] is None
    assert "container.architecture-mismatch" in found["architecture_reason"]
    assert found["metadata"]["hf_architecture"] == "Qwen2ForCausalLM"


def test_integrity_says_what_was_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    path.write_bytes(GOLDEN)
    integrity = describe(path)["integrity"]
    assert "header checksum" in integrity["verified"]
    assert integrity["not_verified"] == ["footer checksum", "padding", "tensor values"]
    # Damage in a tensor is seen by verifying, and inspect does not pretend to have done it.
    path.write_bytes(GOLDEN[:330] + b"\1" + GOLDEN[331:])
    assert describe(path)["integrity"] == integrity
    path.write_bytes(GOLDEN[:-4])
    found = describe(path)
    assert found["integrity"]["has_footer"] is False
    assert "footer checksum" not in found["integrity"]["not_verified"]
    assert "no footer" in found["format"]["notes"][0]


def test_free_keys_of_any_kind_can_be_described(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    odd = {"tokenizer.vocabulary": 7, "tokenizer.merges": "x", "apr.tensor_sha256": [1]}
    path.write_bytes(build(odd, [f32("w", 1.0)]))
    found = describe(path)
    assert found["tokenizer"]["vocab_size"] is None
    assert found["tensors"][0]["sha256"] is None


def test_the_provenance_is_shown_with_how_it_stands(tmp_path: Path) -> None:
    trained = {"what": "checkpoint", "step": 7}
    path = model_file(LLAMA, free={"apr.provenance": [trained]}).write(tmp_path / "x.apr")
    unhashed = {"entries": [trained], "verdict": None, "found": "1 entries, none with a hash"}
    assert describe(path)["provenance"] == unhashed
    entry = stamp(path, Claims(license="MIT")).entry
    shown = describe(path)["provenance"]
    assert (shown["entries"], shown["verdict"]) == ([trained, entry], "PASS")
    model_file(LLAMA, free={"apr.provenance": [trained | {"step": 8}, entry]}).write(path)
    assert describe(path)["provenance"]["verdict"] == "FAIL"
