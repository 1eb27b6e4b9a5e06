"""Reading and writing safetensors files, compared with the reference library."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray
from tests.peak_memory import measured

from apr.convert.huggingface.safetensors_file import SafetensorsFile
from apr.convert.huggingface.safetensors_writer import write_safetensors
from apr.convert.source import SourceTensor
from apr.errors import Refusal

RANDOM = np.random.default_rng(0)
ARRAYS: dict[str, NDArray[Any]] = {
    "z": RANDOM.standard_normal((3, 5)).astype("<f4"),
    "a": RANDOM.standard_normal(7).astype("<f2"),
    "b": RANDOM.integers(0, 1 << 16, (2, 2), dtype="<u2"),
    "scalar": np.array(2.5, "<f4"),
    "empty": np.zeros((0, 3), "<f4"),
    "Ġname": np.ones(1, "<f4"),
}


def source(name: str, array: NDArray[Any]) -> SourceTensor:
    dtype = {"f4": "f32", "f2": "f16", "u2": "bf16"}[array.dtype.str[1:]]
    return SourceTensor(name, dtype, array.shape, lambda: [memoryview(array)])


def as_torch(array: NDArray[Any]) -> torch.Tensor:
    tensor = torch.from_numpy(array.copy())
    return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor


SOURCES = [source(name, array) for name, array in ARRAYS.items()]
TENSORS = {name: as_torch(array) for name, array in ARRAYS.items()}


def test_the_bytes_are_those_of_the_reference_library(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "ours", SOURCES)
    safetensors.torch.save_file(TENSORS, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_the_reference_library_reads_equal_tensors(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "x", SOURCES)
    loaded = safetensors.torch.load_file(tmp_path / "x")
    assert loaded.keys() == TENSORS.keys()
    for name, tensor in loaded.items():
        assert tensor.dtype == TENSORS[name].dtype
        assert torch.equal(tensor, TENSORS[name])


def test_what_the_reference_library_writes_is_read(tmp_path: Path) -> None:
    arrays = ARRAYS | {
        "i64": np.arange(3),
        "u8": np.arange(3, dtype="u1"),
        "bool": np.ones(3, "?"),
        "f64": np.ones(2),
    }
    safetensors.numpy.save_file(arrays, tmp_path / "x", metadata={"made": "here"})
    file = SafetensorsFile.open(tmp_path / "x")
    assert file.metadata == {"made": "here"}
    assert file.entries.keys() == arrays.keys()
    for name, tensor in file.tensors().items():
        assert tensor.shape == arrays[name].shape
        # As often as it is asked for.
        for _ in range(2):
            assert b"".join(tensor.chunks()) == arrays[name].tobytes()


def test_no_metadata_and_no_tensors(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "x", [], metadata={})
    assert (tmp_path / "x").read_bytes() == (8).to_bytes(8, "little") + b"{}      "
    assert SafetensorsFile.open(tmp_path / "x").entries == {}


@pytest.mark.parametrize(
    ("tensor", "id"),
    [
        (SourceTensor("a", "q4_k", (2,), list), "safetensors.unwritable"),
        (SourceTensor("a", "i64", (2,), list), "safetensors.unwritable"),
        (SourceTensor("", "f32", (2,), list), "safetensors.unwritable"),
        (SourceTensor("__metadata__", "f32", (0,), list), "safetensors.unwritable"),
        (SourceTensor("\ud800", "f32", (0,), list), "safetensors.unwritable"),
        (SourceTensor("z", "f32", (0,), list), "safetensors.unwritable"),
        (SourceTensor("a", "f32", (2,), list), "safetensors.written-size"),
        (
            SourceTensor("a", "f32", (2,), lambda: [memoryview(bytes(9))]),
            "safetensors.written-size",
        ),
        (
            SourceTensor("a", "f32", (2,), lambda: (memoryview(bytes(4)) for _ in range(9**9))),
            "safetensors.written-size",
        ),
    ],
)
def test_what_cannot_be_written_leaves_nothing(
    tmp_path: Path, tensor: SourceTensor, id: str
) -> None:
    with pytest.raises(Refusal) as caught:
        write_safetensors(tmp_path / "x", [source("z", ARRAYS["z"]), tensor])
    assert caught.value.id == id
    assert list(tmp_path.iterdir()) == []


def test_memory_stays_bounded_while_a_large_file_is_read_and_written(tmp_path: Path) -> None:
    program = """
import json, sys
from pathlib import Path
from tests.peak_memory import peak_kib
from apr.convert.huggingface.safetensors_file import SafetensorsFile
from apr.convert.huggingface.safetensors_writer import write_safetensors
from apr.convert.source import SourceTensor
before = peak_kib()
chunk = memoryview(bytes(1 << 20))
big = SourceTensor("big", "f32", (256, 1 << 18), lambda: (chunk for _ in range(256)))
path = Path(sys.argv[1])
write_safetensors(path, [big])
write_safetensors(path.with_name("again"), list(SafetensorsFile.open(path).tensors().values()))
print(json.dumps({"grown_kib": peak_kib() - before}))
"""
    assert measured(program, tmp_path / "x")["grown_kib"] < 64 << 10


def test_a_file_that_changed_while_it_was_written_is_not_given_its_name(tmp_path: Path) -> None:
    # F36: what stands on the disk is read back; here somebody writes into the staged file.
    large = SourceTensor("a", "f32", (1 << 18,), lambda: [memoryview(bytes(1 << 20))])

    def meddle() -> list[memoryview]:
        (staged,) = tmp_path.iterdir()
        with staged.open("r+b") as file:
            file.seek(5000)
            file.write(b"x")
        return [memoryview(bytes(4))]

    with pytest.raises(Refusal) as caught:
        write_safetensors(tmp_path / "x", [large, SourceTensor("b", "f32", (1,), meddle)])
    assert caught.value.id == "safetensors.read-back"
    assert list(tmp_path.iterdir()) == []
