"""`apr import` and `apr export`: there and back for every family, and what is left after a no."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from tests import gguf_models, tokenizer_files
from tests.hf_models import HfModel, hf_model, with_tokenizer
from tests.source_models import QUICK

from apr.cli.main import run
from apr.convert.gguf.source import read_gguf_source
from apr.convert.huggingface.source import read_hf_source
from apr.convert.precision import QUANTIZATIONS, Quantization
from apr.convert.source import Source
from apr.errors import FeatureMissing, Refusal
from apr.jobs.download import download
from apr.jobs.export_gguf import export_gguf
from apr.jobs.export_hf import export_hf
from apr.jobs.fresh_process import in_this_process
from apr.jobs.import_model import import_model
from apr.model.weights import load_model

pytestmark = pytest.mark.slow

NORM = "model.norm.weight"


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = run([*map(str, arguments), "--json", "--quiet"])
    return code, json.loads(capsys.readouterr().out)


def listing(directory: Path) -> dict[str, bytes | None]:
    """Everything below a directory, hidden or not, with its bytes."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


def speaking(family: str = "llama", *, tied: bool = True, dtype: str = "<f4") -> HfModel:
    """A model with a tokenizer, in one of the three float formats."""
    model = with_tokenizer(hf_model(family, tied=tied))
    model.config["eos_token_id"] = tokenizer_files.tokenizer().eos_token_id
    model.arrays = {name: as_type(array, dtype) for name, array in model.arrays.items()}
    return model


def as_type(array: np.ndarray, dtype: str) -> np.ndarray:
    """The array in a float format, bf16 cut off and kept as uint16."""
    return (array.view("<u4") >> 16).astype("<u2") if dtype == "<u2" else array.astype(dtype)


def as_values(data: bytes, dtype: str) -> np.ndarray:
    if dtype == "bf16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, {"f32": "<f4", "f16": "<f2"}[dtype]).astype("<f4")


def stored(source: Source) -> dict[str, bytes]:
    return {name: b"".join(each.chunks()) for name, each in source.tensors.items()}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of Hugging Face's, in f32 and tied, with its tokenizer."""
    return speaking().write(tmp_path_factory.mktemp("hf") / "model")


@pytest.fixture(scope="module")
def container(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, imported."""
    path = tmp_path_factory.mktemp("apr") / "model.apr"
    import_model(directory, output=path, **QUICK)
    return path


# --- there and back


@pytest.mark.parametrize(
    ("family", "tied", "dtype"),
    [
        ("llama", True, "<f4"),
        ("llama", False, "<f2"),
        ("llama3", True, "<u2"),
        ("mistral", True, "<f2"),
        ("qwen2", False, "<u2"),
        ("qwen3", True, "<f4"),
    ],
)
def test_there_and_back(tmp_path: Path, family: str, tied: bool, dtype: str) -> None:
    """Byte by byte through Hugging Face, value by value through GGUF, whose vectors are f32."""
    model = speaking("llama" if family == "llama3" else family, tied=tied, dtype=dtype)
    if family == "llama3":
        model = scaled(model)
    if family == "qwen2":
        # AutoTokenizer would read this one as another: export.tokenizer-misread.
        del model.files["tokenizer.json"]
    theirs = model.write(tmp_path / "theirs")
    imported = import_model(theirs, output=tmp_path / "a.apr", **QUICK)
    assert imported.num_tensors == len(model.arrays) > 18
    assert imported.roundings == ()
    exported = export_hf(
        tmp_path / "a.apr",
        output=tmp_path / "hf",
        **QUICK,
    )
    assert exported.proof.reference.num_tokens >= 512
    before, after = read_hf_source(theirs), read_hf_source(tmp_path / "hf")
    assert stored(after) == stored(before)
    assert after.architecture == before.architecture
    assert {name: each.dtype for name, each in after.tensors.items()} == {
        name: each.dtype for name, each in before.tensors.items()
    }
    if imported.tokenizer is None:
        tokenizer = tokenizer_files.write(tmp_path / "tokenizer")
        words = {"output": tmp_path / "a.apr", "tokenizer": tokenizer, "overwrite": True}
        import_model(tmp_path / "hf", **words, **QUICK)
    export_gguf(tmp_path / "a.apr", output=tmp_path / "a.gguf", run_proof=in_this_process)
    import_model(tmp_path / "a.gguf", output=tmp_path / "b.apr", **QUICK)
    loaded, again = load_model(tmp_path / "a.apr"), load_model(tmp_path / "b.apr")
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, again.model.get_parameter(name)), name
    kept = {
        name: each for name, each in stored(before).items() if len(model.arrays[name].shape) > 1
    }
    found = read_gguf_source(tmp_path / "a.gguf")
    assert {found.tensors[name].dtype for name in kept} == set(imported.formats)
    assert {name: stored(found)[name] for name in kept} == kept
    assert found.tensors[NORM].dtype == "f32"
    assert loaded.tokenizer
    assert again.tokenizer
    assert (
        again.tokenizer.encode("hello he").tolist() == loaded.tokenizer.encode("hello he").tolist()
    )


def scaled(model: HfModel) -> HfModel:
    """With heads wide enough that Llama 3's scaling changes some of their frequencies."""
    wide = gguf_models.LLAMA3
    model.config |= wide.to_hf_config() | {"vocab_size": wide.vocab_size}
    model.arrays = {
        name: as_type(0.1 * array, "<u2") for name, array in gguf_models.weights(wide).items()
    }
    return model


def test_a_model_without_a_tokenizer_is_given_one(tmp_path: Path) -> None:
    theirs = hf_model().write(tmp_path / "theirs")
    import_model(theirs, output=tmp_path / "mute.apr", **QUICK)
    before = listing(tmp_path)
    with pytest.raises(Refusal) as refused:
        export_gguf(tmp_path / "mute.apr", output=tmp_path / "mute.gguf")
    assert refused.value.id == "gguf.tokenizer-missing"
    assert listing(tmp_path) == before
    tokenizer = tokenizer_files.write(tmp_path / "tokenizer")
    imported = import_model(
        tmp_path / "mute.apr", output=tmp_path / "speaking.apr", tokenizer=tokenizer
    )
    assert imported.tokenizer
    exported = export_gguf(tmp_path / "speaking.apr", output=tmp_path / "speaking.gguf")
    assert exported.independent_reader
    assert exported.independent_reader["name"] == "gguf-py"


# --- the two commands


def test_a_declared_separator_goes_there_and_back(
    capsys: pytest.CaptureFixture[str], directory: Path, tmp_path: Path
) -> None:
    def separator(path: Path) -> object:
        _, found = answer(capsys, "inspect", path)
        return found["metadata"].get("apr.eos_token")

    tokenizer = tmp_path / "tokenizer"
    tokenizer_files.tokenizer().save(tokenizer)
    import_model(directory, output=tmp_path / "a.apr", tokenizer=tokenizer, **QUICK)
    assert separator(tmp_path / "a.apr") == tokenizer_files.EOS
    for _ in range(2):
        export = ["export", tmp_path / "a.apr", "--format", "hf", "-o", tmp_path / "hf"]
        assert answer(capsys, *export, "--overwrite")[0] == 0
    assert answer(capsys, "import", tmp_path / "hf", "-o", tmp_path / "b.apr")[0] == 0
    assert separator(tmp_path / "b.apr") == tokenizer_files.EOS


def test_import_from_the_command_line(
    capsys: pytest.CaptureFixture[str], directory: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a model.apr"
    words = [
        "import",
        str(directory),
        "-o",
        str(path),
        "--provenance",
        "license=MIT,data_source=us",
    ]
    assert run(words) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"wrote         {path}, ")
    assert "LlamaForCausalLM, 3.11K parameters, tied" in said.out
    assert "20: 20 f32; 32.00 bits per weight" in said.out
    assert "proof         512 tokens, 2 layers: logits within " in said.out
    assert "transformers  5." in said.out
    assert f"next:\n  apr run '{path}' 'def main('\n  apr inspect '{path}' --quality\n" in said.out
    metadata = load_model(path).metadata
    assert (metadata.license, metadata.data_source) == ("MIT", "us")
    assert metadata.data_license is None
    files = metadata.free["apr.provenance"][-1]["files"]
    assert [file["name"] for file in files] == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_import_as_json(
    capsys: pytest.CaptureFixture[str], container: Path, tmp_path: Path
) -> None:
    code, found = answer(
        capsys, "convert", container, "-o", tmp_path / "small.apr", "--quantize", "int8"
    )
    assert code == 0
    assert found["path"] == str(tmp_path / "small.apr")
    assert found["source_format"] == "apr"
    assert found["architecture"]["hf_architecture"] == "LlamaForCausalLM"
    assert found["formats"] == {"f32": 6, "q8": 14}
    assert found["num_tensors"] == 20
    assert 8 < found["bits_per_weight"] < 32
    assert 0 < found["max_relative_rms_error"] < 0.02
    assert found["size_bytes"] == (tmp_path / "small.apr").stat().st_size
    proof = found["proof"]
    assert proof["num_rounded_tensors"] == 14
    assert 0 <= proof["reference"]["max_relative_error"] <= proof["reference"]["tolerance"]
    assert (proof["transformers"], bool(proof["transformers_reason"])) == (None, True)
    assert found["tokenizer"]["fingerprint"]
    assert set(found["elapsed_s"]) == {"read", "formats", "check", "rounding", "proof", "write"}


def test_export_from_the_command_line(
    capsys: pytest.CaptureFixture[str],
    container: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "not" / "yet" / "there"
    assert run(["export", str(container), "--format", "hf", "-o", str(target)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"wrote         {target}, ")
    assert ": config.json, generation_config.json, model.safetensors, tokenizer.json" in said
    assert "proof         512 tokens: logits of the written files within " in said
    assert "loads it without a warning, logits within " in said
    assert f"next:\n  apr import {target} -o back.apr\n" in said
    (tmp_path / "back.apr").write_text("mine")
    assert run(["export", str(container), "--format", "hf", "-o", str(tmp_path / "again")]) == 0
    assert "-o back-2.apr\n" in capsys.readouterr().out
    code, found = answer(capsys, "export", container, "--format", "gguf", "-o", tmp_path / "m.gguf")
    assert code == 0
    assert found["files"] == ["m.gguf"]
    assert found["formats"] == {"f32": 20}
    assert found["independent_reader"]["name"] == "gguf-py"
    assert found["max_relative_rms_error"] == 0.0
    assert found["size_bytes"] == (tmp_path / "m.gguf").stat().st_size
    assert found["elapsed_s"]["proof"] <= found["elapsed_s"]["all"]


def test_an_export_that_is_rounded(
    capsys: pytest.CaptureFixture[str], container: Path, tmp_path: Path
) -> None:
    target = tmp_path / "m.gguf"
    words = ["export", str(container), "--format", "gguf", "-o", str(target)]
    assert run([*words, "--quantize", "bf16"]) == 0
    said = capsys.readouterr().out
    assert "tensors  15 bf16, 5 f32; " in said
    assert re.search(r"\nrounded  15 tensors, relative rms error up to 0\.00\d+ \(model", said)
    assert f"next:\n  llama-cli -m {target} -p 'def main('\n" in said


@pytest.mark.parametrize("quantize", QUANTIZATIONS)
def test_every_number_format_can_be_computed_with(
    directory: Path, tmp_path: Path, quantize: Quantization
) -> None:
    path = tmp_path / "m.apr"
    imported = import_model(directory, output=path, quantize=quantize, **QUICK)
    wanted = {"fp16": "f16", "bf16": "bf16", "int8": "q8", "int4": "q4", "q4k": "q8"}[quantize]
    assert wanted in imported.formats
    assert imported.roundings
    exact = load_model_of(directory)
    rounded = load_model(path).model
    ids = torch.arange(20)[None]
    with torch.no_grad():
        difference = (rounded(ids) - exact(ids)).norm() / exact(ids).norm()
    assert (
        0
        < difference
        < {"fp16": 2e-3, "bf16": 2e-2, "int8": 5e-2, "int4": 0.5, "q4k": 5e-2}[quantize]
    )


def load_model_of(directory: Path) -> Any:
    from tests.hf_load import load

    theirs = load(directory).model.eval()
    return lambda ids: theirs(ids).logits


# --- usage


@pytest.mark.parametrize(
    "provenance",
    ["license", "license=", "=MIT", "license=a,license=b", "author=us", "license=a;b=c,x"],
)
def test_provenance_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str], directory: Path, tmp_path: Path, provenance: str
) -> None:
    target = tmp_path / "m.apr"
    code, found = answer(capsys, "import", directory, "-o", target, "--provenance", provenance)
    assert (code, found["refused"]["id"]) == (2, "usage")
    assert "license=TEXT, data_source=TEXT, data_license=TEXT" in found["refused"]["found"]
    assert not target.exists()


@pytest.mark.parametrize("address", ["https://huggingface.co/a/b", "s3://a/b", "file:///a/b"])
def test_other_addresses_are_a_usage_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, address: str
) -> None:
    code, found = answer(capsys, "import", address, "-o", tmp_path / "m.apr")
    assert (code, found["refused"]["id"]) == (2, "usage")
    assert "neither a local path nor hf://org/name" in found["refused"]["found"]


def test_options_that_would_have_no_effect(
    capsys: pytest.CaptureFixture[str], container: Path, tmp_path: Path
) -> None:
    words = ["export", container, "-o", tmp_path / "x"]
    for more in (
        ["--format", "hf", "--quantize", "q8_0"],
        ["--format", "gguf", "--max-shard-bytes", "1000"],
        ["--format", "onnx"],
        [],
    ):
        code, found = answer(capsys, *words, *more)
        assert (code, found["refused"]["id"]) == (2, "usage"), more
    assert list(tmp_path.iterdir()) == []


# --- what is left after a no


def test_nothing_is_overwritten_unasked(
    capsys: pytest.CaptureFixture[str], container: Path, tmp_path: Path
) -> None:
    target = tmp_path / "m"
    for words in (
        ["import", container],
        ["export", container, "--format", "hf"],
        ["export", container, "--format", "gguf"],
    ):
        target.write_text("mine")
        code, found = answer(capsys, *words, "-o", target)
        assert (code, found["refused"]["id"]) == (5, "files.exists")
        assert listing(tmp_path) == {"m": b"mine"}
        if "hf" not in words:
            assert answer(capsys, *words, "-o", target, "--overwrite")[0] == 0
            assert listing(tmp_path).keys() == {"m"}
            assert target.read_bytes()[:3] in (b"APR", b"GGU")


@pytest.mark.parametrize("words", [["import"], ["export", "--format", "gguf"]])
def test_a_directory_is_no_file_even_with_overwrite(
    capsys: pytest.CaptureFixture[str], container: Path, tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "m").mkdir()
    code, found = answer(capsys, *words, container, "-o", tmp_path / "m", "--overwrite")
    assert (code, found["refused"]["id"]) == (7, "files.io-failed")
    # Before anything is read, and so before minutes of proof.
    assert found["refused"]["found"] == "a directory"
    assert listing(tmp_path) == {"m": None}


@pytest.mark.parametrize("through_link", [False, True])
@pytest.mark.parametrize(
    "words", [["import"], ["export", "--format", "gguf"], ["export", "--format", "hf"]]
)
def test_what_is_read_is_not_what_is_written(
    capsys: pytest.CaptureFixture[str],
    container: Path,
    tmp_path: Path,
    words: list[str],
    through_link: bool,
) -> None:
    model, other = tmp_path / "m.apr", tmp_path / "link.apr"
    model.write_bytes(container.read_bytes())
    other.symlink_to(model)
    target = other if through_link else model
    before = listing(tmp_path)
    code, found = answer(capsys, *words, model, "-o", target, "--overwrite")
    hf = "hf" in words
    assert (code, found["refused"]["id"]) == (
        (5, "files.foreign-content") if hf else (2, "files.output-overlaps-input")
    )
    assert listing(tmp_path) == before
    assert other.is_symlink()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_of_the_source_is_not_overwritten(
    capsys: pytest.CaptureFixture[str], directory: Path, tmp_path: Path, name: str
) -> None:
    before = listing(directory)
    code, found = answer(capsys, "import", directory, "-o", directory / name, "--overwrite")
    assert (code, found["refused"]["id"]) == (2, "files.output-overlaps-input")
    tokenizer = tokenizer_files.write(tmp_path / "tokenizer")
    code, found = answer(
        capsys,
        *("import", directory, "-o", tokenizer / "tokenizer.json"),
        *("--tokenizer", tokenizer, "--overwrite"),
    )
    assert (code, found["refused"]["id"]) == (2, "files.output-overlaps-input")
    assert listing(directory) == before


def without_a_bias(model: HfModel) -> None:
    del model.arrays["model.layers.0.self_attn.q_proj.bias"]


def not_a_number(model: HfModel) -> None:
    model.arrays[NORM][0] = np.nan


def of_zeros(model: HfModel) -> None:
    model.arrays[NORM][:] = 0


def too_large_for_f16(model: HfModel) -> None:
    model.arrays[NORM][0] = 1e6


@pytest.mark.parametrize(
    ("fault", "quantize", "id"),
    [
        (without_a_bias, "fp16", "import.tensor-missing"),
        (of_zeros, "fp16", "import.all-zero"),
        (too_large_for_f16, "fp16", "convert.overflow"),
        (not_a_number, "fp16", "convert.not-finite"),
        (not_a_number, None, "import.not-finite"),
    ],
)
def test_a_refused_import_leaves_nothing(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    fault: Callable[[HfModel], None],
    quantize: str | None,
    id: str,
) -> None:
    model = hf_model("qwen2")
    fault(model)
    model.write(tmp_path / "theirs")
    before = listing(tmp_path)
    words: list[object] = ["import", tmp_path / "theirs", "-o", tmp_path / "new" / "m.apr"]
    words += ["--quantize", quantize] if quantize else []
    code, found = answer(capsys, *words)
    assert (code, found["refused"]["id"]) == (5, id)
    assert listing(tmp_path) == before
    (tmp_path / "m.apr").write_bytes(b"an older one")
    assert answer(capsys, *words, "--overwrite")[0] == 5
    assert (tmp_path / "m.apr").read_bytes() == b"an older one"


def test_a_tokenizer_that_is_too_large(
    capsys: pytest.CaptureFixture[str], directory: Path, tmp_path: Path
) -> None:
    words = tuple(f"h{letter}" for letter in "abcdefghijklm")
    tokenizer = tokenizer_files.write(tmp_path / "tokenizer", words=words)
    before = listing(tmp_path)
    code, found = answer(
        capsys, "import", directory, "-o", tmp_path / "m.apr", "--tokenizer", tokenizer
    )
    assert (code, found["refused"]["id"]) == (5, "import.tokenizer-too-large")
    assert found["refused"]["expected"].startswith("at most 264")
    assert listing(tmp_path) == before
    fitting = tokenizer_files.write(tmp_path / "fitting", words=words[:7])
    imported = import_model(
        directory,
        output=tmp_path / "m.apr",
        tokenizer=fitting,
        **QUICK,
    )
    assert imported.tokenizer
    assert imported.tokenizer.vocab_size == 264
    files = load_model(imported.path).metadata.free["apr.provenance"][-1]["files"]
    sizes = [file["size_bytes"] for file in files if file["name"] == "tokenizer.json"]
    assert (fitting / "tokenizer.json").stat().st_size in sizes


@pytest.mark.parametrize("words", [["import"], ["export", "--format", "gguf"]])
def test_ctrl_c_during_the_proof_leaves_nothing(
    container: Path, tmp_path: Path, words: list[str]
) -> None:
    before = listing(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "apr", *words, str(container), "-o", str(tmp_path / "m"), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"NO_COLOR": "1"},
        start_new_session=True,
    )
    # What is staged beside the target is there before the proof begins, which takes a second.
    deadline_s = time.monotonic() + 60
    while not any(path.name.startswith(".m.") for path in tmp_path.iterdir()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["interrupted"]["message"] == "interrupted"
    assert "Traceback" not in err
    assert listing(tmp_path) == before


# --- hf://


DOWNLOAD = """
import sys
from apr.jobs.download import download
print(download(sys.argv[1], patience_s=0.3))
"""


def fetch(address: str, **environment: str) -> tuple[int, dict[str, Any], float]:
    """What `apr import` says of an address; the library reads its settings once per process."""
    started_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "apr", "import", address, "-o", "never.apr", "--json"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, json.loads(done.stdout)["refused"], time.monotonic() - started_s


@pytest.mark.parametrize(
    ("environment", "found"),
    [({"HF_HUB_OFFLINE": "1"}, "OfflineModeIsEnabled"), ({"HF_HUB_OFFLINE": "0"}, "Connect")],
)
def test_a_hub_that_is_not_reached(tmp_path: Path, environment: dict[str, str], found: str) -> None:
    nobody_listens = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    code, refused, elapsed_s = fetch("hf://org/model", **nobody_listens, **environment)
    assert (code, refused["id"]) == (10, "import.hub-unreachable")
    assert found in refused["found"]
    assert "its cache lacks the model" in refused["found"]
    assert elapsed_s < 30


def test_a_model_in_the_cache_needs_no_hub(tmp_path: Path) -> None:
    repo = tmp_path / "hub" / "models--org--model"
    commit = "1234567890" * 4
    speaking().write(repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    done = subprocess.run(
        [sys.executable, "-c", DOWNLOAD, "hf://org/model"],
        env=os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == str(repo / "snapshots" / commit)


def test_a_hub_that_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    """It takes the connection and never answers; the library alone would wait for ever."""
    with socket.create_server(("127.0.0.1", 0)) as hub:
        address = f"http://127.0.0.1:{hub.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", DOWNLOAD, "hf://org/model"],
            env=os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": address},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert "NetworkFailed" in done.stderr
    assert "Timeout" in done.stderr


@pytest.mark.parametrize("address", ["hf://model", "hf://a/b/c", "hf://a/b.git", "hf://a/b@"])
def test_an_address_that_names_no_model(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, address: str
) -> None:
    code, found = answer(capsys, "import", address, "-o", tmp_path / "m.apr")
    assert (code, found["refused"]["id"]) == (2, "import.hub-name")


def test_without_the_library_that_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    # As in an installation without the extra: no path leads to the package.
    monkeypatch.delitem(sys.modules, "huggingface_hub", raising=False)
    without = [each for each in sys.path if not (Path(each) / "huggingface_hub").is_dir()]
    assert len(without) < len(sys.path)
    monkeypatch.setattr(sys, "path", without)
    with pytest.raises(FeatureMissing) as refused:
        download("hf://org/model")
    assert (refused.value.id, refused.value.exit_code) == ("import.hub-missing", 9)
    assert "apr[hub]" in refused.value.fix


def test_what_the_safetensors_library_reads_of_an_export(container: Path, tmp_path: Path) -> None:
    export_hf(
        container,
        output=tmp_path / "hf",
        **QUICK,
        max_shard_bytes=5000,
    )
    found: dict[str, Any] = {}
    for file in (tmp_path / "hf").glob("*.safetensors"):
        found |= safetensors.numpy.load_file(file)
    expected = speaking().arrays
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], array) for name, array in expected.items())


def test_a_peer_that_cannot_load_a_source_proves_nothing(tmp_path: Path) -> None:
    """transformers 5 wants a number there; the model does not depend on it."""
    pytest.importorskip("transformers", minversion="5")
    model = speaking()
    model.config["attention_dropout"] = "high"
    imported = import_model(model.write(tmp_path / "hf"), output=tmp_path / "m.apr")
    assert imported.proof.transformers is None
    assert imported.proof.transformers_reason is not None
    assert imported.proof.transformers_reason.startswith("transformers cannot load it: ")
    before = listing(tmp_path)
    with pytest.raises(Refusal) as refused:
        export_hf(tmp_path / "m.apr", output=tmp_path / "out")
    assert refused.value.id == "export.not-loadable"
    assert "attention_dropout" in refused.value.found
    assert listing(tmp_path) == before


def test_a_model_whose_tokenizer_would_be_misread_goes_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = with_tokenizer(hf_model("qwen2")).write(tmp_path / "hf")
    import_model(theirs, output=tmp_path / "m.apr", **QUICK)
    words = ["export", str(tmp_path / "m.apr"), "-o", str(tmp_path / "out"), "--format"]
    assert run([*words, "hf"]) == 5
    assert "export.tokenizer-misread" in capsys.readouterr().err
    assert run([*words, "hf", "--without-tokenizer"]) == 0
    assert not list((tmp_path / "out").glob("tokenizer*"))
    assert (tmp_path / "out" / "config.json").exists()
    assert run([*words, "gguf", "--without-tokenizer"]) == 2
    assert "has no effect" in capsys.readouterr().err


def test_what_a_container_says_of_its_origin_survives_an_import(
    container: Path, tmp_path: Path
) -> None:
    claims = ["--license", "MIT", "--data-source", "here", "--data-license", "CC0-1.0"]
    more = ["--description", "small", "--name", "speaker", "--pretraining-tokens", "12"]
    stamped, target = tmp_path / "stamped.apr", tmp_path / "small.apr"
    assert run(["stamp", str(container), *claims, *more, "-o", str(stamped)]) == 0
    import_model(
        stamped, output=target, quantize="int8", provenance={"license": "Apache-2.0"}, **QUICK
    )
    metadata = load_model(target).metadata
    # Said anew for this file; everything else as the owner said it before.
    assert metadata.license == "Apache-2.0"
    assert (metadata.data_source, metadata.data_license) == ("here", "CC0-1.0")
    assert (metadata.description, metadata.name) == ("small", "speaker")
    assert metadata.free["apr.pretraining_tokens"] == 12
    assert len(metadata.free["apr.provenance"]) == 3
