"""Every rule of `apr lint`: the fault that it finds, and the twin that it lets pass."""

import re
from pathlib import Path
from typing import Any

import pytest
from tests.container_files import Row, build, f32
from tests.container_models import LLAMA, QWEN2, ModelFile, hashes, model_file
from tests.tokenizer_files import tokenizer

from apr.container.embedded_tokenizer import embed_tokenizer
from apr.container.inspecting.lint import LEVELS, lint
from apr.container.stamp import Claims, stamp
from apr.errors import DamagedFile

WORDS = [f"word{number}" for number in range(LLAMA.vocab_size)]
VOCABULARY = {"tokenizer.vocabulary": WORDS, "tokenizer.merges": []}
COMPLETE = {
    "name": "a model",
    "description": "a model for a test",
    "license": "MIT",
    "data_source": "none",
    "data_license": "CC0-1.0",
}


def complete() -> ModelFile:
    """A model that only lacks an exact tokenizer."""
    file = model_file(free=VOCABULARY | {"apr.provenance": [{"what": "checkpoint"}]})
    file.set_free(hashes(file.arrays))
    file.set(**COMPLETE)
    return file


def ids(path: Path) -> set[str]:
    found = lint(path)
    assert all(LEVELS[finding.id] == finding.level for finding in found.findings)
    assert all(finding.found and finding.fix for finding in found.findings)
    return {finding.id for finding in found.findings}


def with_keys(path: Path, **keys: Any) -> Path:
    file = complete()
    file.set(**keys)
    return file.write(path)


def with_free(path: Path, keys: dict[str, Any]) -> Path:
    file = complete()
    file.set_free(keys)
    return file.write(path)


BASE = {"lint.tokenizer-inexact"}


def test_the_harmless_twin(tmp_path: Path) -> None:
    assert ids(complete().write(tmp_path / "x.apr")) == BASE


def test_a_whole_model_has_no_findings(tmp_path: Path) -> None:
    small = tokenizer()
    shape = LLAMA.__class__(**{**LLAMA.__dict__, "vocab_size": small.vocab_size})
    file = model_file(shape, free=embed_tokenizer(small) | {"apr.provenance": [{"what": "x"}]})
    file.set_free(hashes(file.arrays))
    file.set(**COMPLETE)
    found = lint(file.write(tmp_path / "x.apr"))
    assert (found.verdict, found.findings, found.not_applied) == ("PASS", (), ())
    assert len(found.applied) == 8


@pytest.mark.parametrize(
    ("keys", "id"),
    [
        ({"license": None}, "lint.license-missing"),
        ({"license": " "}, "lint.license-missing"),
        ({"data_source": None}, "lint.data-source-missing"),
        ({"data_license": None}, "lint.data-license-missing"),
        ({"license": "Apache 2"}, "lint.license-not-spdx"),
        ({"data_license": "free"}, "lint.license-not-spdx"),
        ({"description": None}, "lint.model-card-missing"),
        ({"name": None}, "lint.name-missing"),
        ({"hf_architecture": None}, "lint.identity-missing"),
        ({"hf_model_type": None}, "lint.identity-missing"),
        ({"architecture": "qwen2"}, "lint.identity-contradictory"),
        ({"hf_model_type": "mamba"}, "lint.identity-unknown"),
        ({"rope_theta": None}, "lint.architecture-incomplete"),
    ],
)
def test_a_named_key(tmp_path: Path, keys: dict[str, Any], id: str) -> None:
    assert ids(with_keys(tmp_path / "x.apr", **keys)) == BASE | {id}


@pytest.mark.parametrize(
    ("keys", "id"),
    [
        ({"tokenizer.padding_token_id": 11}, "lint.padding-token"),
        ({"tokenizer.padding_token_id": True}, "lint.padding-token"),
        ({"tokenizer.padding_token_id": 3, "tokenizer.eos_token_id": 3}, "lint.padding-token"),
        ({"apr.provenance": []}, "lint.provenance-missing"),
        ({"apr.provenance": "text"}, "lint.provenance-edited"),
    ],
)
def test_a_free_key(tmp_path: Path, keys: dict[str, Any], id: str) -> None:
    assert ids(with_free(tmp_path / "x.apr", keys)) == BASE | {id}


def test_a_padding_token_of_its_own_is_no_finding(tmp_path: Path) -> None:
    keys = {"tokenizer.padding_token_id": 3, "tokenizer.eos_token_id": 4}
    assert ids(with_free(tmp_path / "x.apr", keys)) == BASE


def test_a_vocabulary_with_a_gap(tmp_path: Path) -> None:
    path = with_free(tmp_path / "x.apr", {"tokenizer.vocab_size": 12})
    assert ids(path) == {"lint.vocabulary-unusable"}


def test_tensors_of_another_family(tmp_path: Path) -> None:
    file = complete()
    file.arrays = model_file(QWEN2).arrays
    file.set_free(hashes(file.arrays))
    assert "lint.identity-contradictory" in ids(file.write(tmp_path / "x.apr"))


def test_an_edited_entry(tmp_path: Path) -> None:
    path = complete().write(tmp_path / "x.apr")
    entry = stamp(path, Claims(author="me")).entry
    assert ids(path) == BASE
    with_free(path, {"apr.provenance": [{"what": "checkpoint"}, entry | {"by": "you"}]})
    assert ids(path) == BASE | {"lint.provenance-edited"}


def test_what_only_bytes_can_show(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    metadata = COMPLETE | {"apr.provenance": [{"what": "import"}], "apr.tensor_sha256": {}}
    sound = [f32("a", 1.0)]
    path.write_bytes(build(metadata, sound))
    assert ids(path) == set()
    path.write_bytes(build(metadata, sound, footer=False))
    assert ids(path) == {"lint.footer-missing"}
    del metadata["apr.tensor_sha256"]
    path.write_bytes(build(metadata, sound))
    assert ids(path) == {"lint.tensor-sha256-missing"}
    del metadata["description"]
    path.write_bytes(build(metadata, sound, flags=0x0480))
    assert ids(path) == {"lint.tensor-sha256-missing"}
    path.write_bytes(build(metadata | {"d_model": 4, "hidden_size": 4}, sound, flags=0x0480))
    assert "lint.doubled-spelling" in ids(path)
    path.write_bytes(build(metadata, [Row(b"a", 3, (1,), bytes(8))], flags=0x0480))
    assert "lint.dtype-misread" in ids(path)


def test_unaligned_tensors(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    second = Row(b"b", 0, (1,), b"", offset=60, size=4)
    path.write_bytes(build(COMPLETE, [Row(b"a", 0, (15,), bytes(60)), second]))
    assert "lint.tensors-unaligned" in ids(path)


def test_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = complete().write(tmp_path / "x.apr")
    monkeypatch.setattr("apr.container.inspecting.lint._LARGE_BYTES", 100)
    assert ids(path) == BASE | {"lint.large-unquantized"}


def test_a_model_without_a_tokenizer(tmp_path: Path) -> None:
    file = model_file(free={"apr.provenance": [{"what": "checkpoint"}]})
    file.set_free(hashes(file.arrays))
    file.set(**COMPLETE)
    assert ids(file.write(tmp_path / "x.apr")) == {"lint.tokenizer-missing"}


def test_every_finding_is_planted_here_and_documented() -> None:
    here = Path(__file__).read_text()
    assert [id for id in LEVELS if f'"{id}"' not in here] == []
    document = (Path(__file__).parents[3] / "docs" / "errors.md").read_text()
    table = re.findall(r"^\| `(lint\.[a-z0-9-]+)` \| (\w+) \|", document, re.M)
    assert dict(table) == LEVELS


def test_a_stamp_mends_what_it_says(tmp_path: Path) -> None:
    path = model_file(free=VOCABULARY).write(tmp_path / "x.apr")
    before = lint(path)
    assert {f.level for f in before.findings} == {"warning", "info"}
    stamp(
        path,
        Claims(license="MIT", data_source="x", data_license="MIT", description="y", name="z"),
    )
    assert ids(path) == BASE | {"lint.tensor-sha256-missing"}
    assert lint(path, fail_on="error").verdict == "PASS"


def test_what_is_no_container_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(DamagedFile):
        lint(path)
