"""Whatever happens to the bytes of a shard directory, opening it ends well or in a refusal."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.shard_files import encode

from apr.errors import Refusal
from apr.shards.reader import ShardReader

FILES = ["manifest.json", "shard-00000.bin", "shard-00000.idx", "shard-00001.bin"]
mutations = st.lists(
    st.tuples(
        st.sampled_from(FILES),
        st.sampled_from(["flip", "cut", "insert", "zero"]),
        st.integers(0, 1 << 16),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)


def mutate(data: bytes, kind: str, at: int, value: int) -> bytes:
    at %= len(data) + 1
    if kind == "cut":
        return data[:at]
    if kind == "insert":
        return data[:at] + bytes([value]) + data[at:]
    if kind == "zero":
        return data[:at] + bytes(len(data[at : at + value])) + data[at + value :]
    return data[:at] + bytes([byte ^ (value or 1) for byte in data[at : at + 1]]) + data[at + 1 :]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output, manifest = encode(tmp_path_factory.mktemp("original"), ["x" * 9] * 4)
    assert manifest.shard_count == 2
    return output


@given(changes=mutations, verify=st.booleans())
@settings(max_examples=150)
def test_a_mutated_directory_is_refused_or_unchanged(
    original: Path, changes: list[tuple[str, str, int, int]], verify: bool
) -> None:
    mutated = original.with_name("mutated")
    shutil.rmtree(mutated, ignore_errors=True)
    shutil.copytree(original, mutated)
    for name, kind, at, value in changes:
        path = mutated / name
        path.write_bytes(mutate(path.read_bytes(), kind, at, value))
    same = all((mutated / name).read_bytes() == (original / name).read_bytes() for name in FILES)
    try:
        reader = ShardReader.open(mutated, verify=verify)
    except Refusal:
        assert not same
        return
    assert same or not verify
    reader.read(0, reader.num_tokens)
    reader.document_numbers(0, reader.num_tokens)
