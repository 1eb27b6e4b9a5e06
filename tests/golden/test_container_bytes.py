"""Exact bytes of `.apr` files, from the format's description and from an independent writer."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike
from tests.container_files import GOLDEN

from apr.container.named_keys import Metadata
from apr.container.reader import Container
from apr.container.writer import TensorSource, write_container

ORACLE = Path(__file__).resolve().parents[2].parent / "shared" / "apr_golden.py"

# golden_v2_current.apr of the Rust project, as predicted by the format's description.
UPSTREAM_CURRENT = bytes.fromhex(
    """
    4150520002000004020000004000000000000000bd0000000001000000000000
    8001000000000000028cc03b0000000000000000000000000000000000000000
    7b226d6f64656c5f74797065223a226c696e6561725f72656772657373696f6e
    222c226e616d65223a22676f6c64656e2d7632222c226c6963656e7365223a6e
    756c6c2c22646174615f736f75726365223a6e756c6c2c22646174615f6c6963
    656e7365223a6e756c6c2c2276657273696f6e223a22302e302e302d676f6c64
    656e222c22637265617465645f6174223a2231373030303030303030222c2274
    6f74616c5f73697a65223a302c22706172616d5f636f756e74223a387d000000
    0400626961730001010000000000000000000000000000000400000000000000
    0700776569676874730001080000000000000040000000000000002000000000
    0000000000000000000000000000000000000000000000000000000000000000
    0000000000000000000000000000000000000000000000000000000000000000
    0000003e00000000000000000000000000000000000000000000000000000000
    0000000000000000000000000000000000000000000000000000000000000000
    0000803f000000400000003f000000bf00008040000000c00000803e00000041
    0000000000000000000000000000000000000000000000000000000000000000
    353f0f55
    """
)


def tensor(name: str, dtype: str, values: ArrayLike) -> TensorSource:
    array = np.asarray(values, {"f32": "<f4", "f16": "<f2"}[dtype])
    return TensorSource(name, dtype, array.shape, lambda: [memoryview(array)])


def write_golden(path: Path) -> bytes:
    write_container(
        path,
        metadata=Metadata(model_type="golden", param_count=10),
        # In the wrong order on purpose.
        tensors=[
            tensor("b.weight", "f32", [[1.0, -2.0, 0.5], [3.25, 0.0, -0.125]]),
            tensor("a.bias", "f16", [0.5, -1.0, 2.0, 65504.0]),
        ],
    )
    return path.read_bytes()


@pytest.fixture
def oracle() -> Path:
    if not ORACLE.is_file():
        pytest.skip(f"the independent writer is absent: {ORACLE}")
    return ORACLE


def run_oracle(oracle: Path, *arguments: object) -> str:
    command = [sys.executable, str(oracle), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_golden_file(tmp_path: Path) -> None:
    written = write_golden(tmp_path / "golden.apr")
    assert written == GOLDEN
    assert hashlib.sha256(written).hexdigest() == (
        "403add2f4c37ab44df578c4670ca8e8a54a4109ee99dd72dcfbd70500b6b9a9c"
    )


def test_predicted_upstream_fixture(tmp_path: Path) -> None:
    path = tmp_path / "current.apr"
    write_container(
        path,
        metadata=Metadata(
            model_type="linear_regression",
            name="golden-v2",
            version="0.0.0-golden",
            created_at="1700000000",
            param_count=8,
        ),
        tensors=[
            tensor("weights", "f32", [1.0, 2.0, 0.5, -0.5, 4.0, -2.0, 0.25, 8.0]),
            tensor("bias", "f32", [0.125]),
        ],
    )
    assert path.read_bytes() == UPSTREAM_CURRENT
    assert hashlib.sha256(UPSTREAM_CURRENT).hexdigest() == (
        "047642c8a09f5807466374928c28e370855ddb96f527d4445ee359a591594c2c"
    )


def test_order_of_the_tensors_given_changes_no_byte(tmp_path: Path) -> None:
    for number, order in enumerate((("b", "a"), ("a", "b"))):
        write_container(
            tmp_path / f"{number}.apr",
            metadata=Metadata().with_free({"z": 1, "a": 2} if number else {"a": 2, "z": 1}),
            tensors=[tensor(name, "f32", [1.0]) for name in order],
        )
    assert (tmp_path / "0.apr").read_bytes() == (tmp_path / "1.apr").read_bytes()


def test_the_golden_file_reads_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "golden.apr"
    path.write_bytes(GOLDEN)
    with Container.open(path) as container:
        assert container.verify().num_tensors == 2
        assert container.metadata == Metadata(model_type="golden", param_count=10)
        assert container.array("a.bias").tolist() == [0.5, -1.0, 2.0, 65504.0]
        assert container.array("b.weight").tolist() == [[1.0, -2.0, 0.5], [3.25, 0.0, -0.125]]
        assert container.sections.notes == ()


def test_our_bytes_equal_the_independent_writers(tmp_path: Path, oracle: Path) -> None:
    theirs = tmp_path / "theirs.apr"
    run_oracle(oracle, "--write", theirs)
    assert write_golden(tmp_path / "ours.apr") == theirs.read_bytes()


def test_the_independent_parser_has_nothing_to_remark(tmp_path: Path, oracle: Path) -> None:
    path = tmp_path / "ours.apr"
    write_container(
        path,
        metadata=Metadata(model_type="test", rope_theta=1e6, hidden_size=3).with_free(
            {"tied_embeddings": True, "apr.note": "\N{GREEK SMALL LETTER ALPHA}"}
        ),
        tensors=[
            tensor("scalar", "f32", 2.5),
            tensor("empty", "f16", np.zeros((0, 3))),
            tensor("\N{LATIN SMALL LETTER E WITH ACUTE}", "f16", [[1.0], [2.0]]),
            TensorSource("half", "bf16", (2,), lambda: [memoryview(b"\x80\x3f\x00\x40")]),
        ],
    )
    report = run_oracle(oracle, "--parse", path).splitlines()
    assert report[-1] == "notes: []"
    assert [line.split()[:2] for line in report[:4]] == [
        ["empty", "f16"],
        ["half", "bf16"],
        ["scalar", "f32"],
        ["\N{LATIN SMALL LETTER E WITH ACUTE}", "f16"],
    ]
