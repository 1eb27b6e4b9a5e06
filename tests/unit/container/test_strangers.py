import json
import struct
from pathlib import Path

import pytest
from tests.container_files import GOLDEN

from apr.container.reader import Container
from apr.errors import DamagedFile

HEADER = json.dumps({"__metadata__": {}}).encode()
SAFETENSORS = struct.pack("<Q", len(HEADER)) + HEADER


def refusal_of(path: Path, data: bytes) -> DamagedFile:
    path.write_bytes(data)
    with pytest.raises(DamagedFile) as caught:
        Container.open(path)
    assert caught.value.id == "container.not-apr"
    assert caught.value.exit_code == 4
    return caught.value


@pytest.mark.parametrize(
    ("data", "found", "fix"),
    [
        (b"GGUF\3\0\0\0" + bytes(40), "GGUF", "apr import '{}' -o model.apr"),
        (b"GGUF", "GGUF", "apr import '{}' -o model.apr"),
        (SAFETENSORS, "safetensors", "apr import '{}' -o model.apr"),
        (b"PK\3\4" + bytes(60), "zip archive", "never opened"),
        (b"\x80\2}q\0.", "pickle, protocol 2", "never opened"),
        (b"\x80\5}q\0.", "pickle, protocol 5", "never opened"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page", "the file itself"),
    ],
)
def test_a_stranger_is_named_with_the_next_command(
    tmp_path: Path, data: bytes, found: str, fix: str
) -> None:
    path = tmp_path / "a model.apr"
    refused = refusal_of(path, data)
    assert found in refused.found
    assert fix.format(path) in refused.fix


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b"GGML" + bytes(60),
        b"\x80\1}q\0.",
        # A length that no safetensors header of this file could have.
        struct.pack("<Q", len(HEADER) + 1) + HEADER,
        struct.pack("<Q", 1 << 62) + HEADER,
    ],
)
def test_lookalikes_are_only_shown(tmp_path: Path, data: bytes) -> None:
    refused = refusal_of(tmp_path / "x.apr", data)
    assert repr(data[:4]) in refused.found
    assert refused.fix == "name an .apr file"


def test_the_harmless_twin(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    path.write_bytes(GOLDEN)
    Container.open(path).close()
