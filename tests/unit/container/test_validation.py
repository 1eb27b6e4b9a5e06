import json
from pathlib import Path

from tests.container_files import GOLDEN, build, f32, resealed
from tests.container_models import LLAMA, hashes, model_file

from apr.container.inspecting.validation import validate
from apr.progress import Progress


def test_the_golden_file(tmp_path: Path) -> None:
    path = tmp_path / "golden.apr"
    path.write_bytes(GOLDEN)
    validation = validate(path)
    assert validation.verdict == "PASS"
    assert {check.id: check.verdict for check in validation.checks} == {
        "container.structure": "PASS",
        "container.footer": "PASS",
        "container.padding": "PASS",
        "container.values-finite": "PASS",
        "container.spelling": "PASS",
    }
    # What was not checked is said, with the reason, and not counted as passed.
    assert {skip.id for skip in validation.not_applicable} == {
        "container.tensor-sha256",
        "container.model",
        "container.tokenizer",
        "container.provenance",
    }
    assert json.loads(json.dumps(validation.as_dict()))["verdict"] == "PASS"


def test_a_model(tmp_path: Path) -> None:
    file = model_file(LLAMA)
    file.set_free(hashes(file.arrays))
    validation = validate(file.write(tmp_path / "x.apr"))
    checks = {check.id: check for check in validation.checks}
    assert validation.verdict == "PASS"
    assert checks["container.tensor-sha256"].found == "20 of 20 agree"
    assert checks["container.model"].found == f"llama, {LLAMA.num_parameters} parameters"
    assert checks["container.values-finite"].found == f"{LLAMA.num_parameters} values"


def test_padding_that_hides_something(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    path.write_bytes(resealed(GOLDEN, at=447, new=b"\1"))
    failed = [check.id for check in validate(path).checks if check.verdict == "FAIL"]
    assert failed == ["container.padding"]


def test_a_file_without_padding(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    text = json.dumps({"model_type": ""}).encode()
    text = json.dumps({"model_type": "x" * (64 - len(text))}).encode()
    # Name and shape fill the index row to 64 bytes, and 16 floats fill the data.
    path.write_bytes(build(text, [f32("n" * 36, *range(16))]))
    assert len(path.read_bytes()) == 64 * 4 + 4
    validation = validate(path)
    assert validation.verdict == "PASS"
    assert "container.padding" in {skip.id for skip in validation.not_applicable}


def test_several_wrong_tensors_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    rows = [f32("a", 1.0), f32("b", 2.0)]
    path.write_bytes(build({"apr.tensor_sha256": {"a": "0" * 64, "b": "1" * 64}}, rows))
    check = next(c for c in validate(path).checks if c.id == "container.tensor-sha256")
    assert check.verdict == "FAIL"
    assert "tensor 'a'" in check.found
    assert check.found.endswith("and 1 more")


def test_progress_covers_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    path.write_bytes(GOLDEN)
    reports: list[Progress] = []
    validate(path, progress=reports.append)
    assert reports[-1].done == reports[-1].total == 448
