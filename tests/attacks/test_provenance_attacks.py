"""Malformed documents.jsonl.zst: each refused by its own id, in bounded time and memory."""

import json
import os
import time
import tracemalloc
from pathlib import Path

import pytest
import zstandard
from tests.provenance_files import compress, lines

from apr.errors import DamagedFile
from apr.shards.provenance import PROVENANCE_NAME, read_provenance

ROW = {"source": "a.py"}
WHOLE = compress(lines([ROW] * 100))

ATTACKS = {
    "empty": b"",
    "no zstd": b"not compressed at all",
    "a frame cut at its end": WHOLE[:-3],
    "a second frame cut": WHOLE + WHOLE[: len(WHOLE) // 2],
    "garbage after a frame": WHOLE + b"garbage",
    "a flipped byte": WHOLE[:9] + bytes([WHOLE[9] ^ 0xFF]) + WHOLE[10:],
    "no JSON": compress(b"{\n"),
    "a list": compress(b"[]\n"),
    "a number": compress(b"1\n"),
    "a blank line": compress(b"\n"),
    "not UTF-8": compress(b'{"source": "\xff"}\n'),
    "a lone surrogate": compress(b'{"source": "\\ud800"}\n'),
    "no source": compress(b'{"row": 1}\n'),
    "a source that is a number": compress(b'{"source": 1}\n'),
    "a row that is true": compress(b'{"source": "a", "row": true}\n'),
    "a row that is null": compress(b'{"source": "a", "row": null}\n'),
    "another key": compress(b'{"source": "a", "colour": "red"}\n'),
    "two fates": compress(b'{"source": "a", "dropped": "x", "quarantined": "y"}\n'),
    "an empty fate": compress(b'{"source": "a", "dropped": ""}\n'),
    "a fate in many words": compress(b'{"source": "a", "dropped": "because of this"}\n'),
    "a fate without end": compress(lines([ROW | {"dropped": "x" * 65}])),
    "a line without end": compress(json.dumps({"source": "a" * 70_000}).encode() + b"\n"),
    "nested without end": compress(b'{"source": ' + b"[" * 20_000 + b"\n"),
}


def refusal_of(directory: Path) -> str:
    with pytest.raises(DamagedFile) as refused:
        list(read_provenance(directory))
    return refused.value.id


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / PROVENANCE_NAME
    path.write_bytes(ATTACKS[name])
    assert refusal_of(tmp_path) == "shards.provenance-damaged"
    path.write_bytes(WHOLE)
    assert len(list(read_provenance(tmp_path))) == 100


def test_a_bomb_of_one_line_is_stopped_early(tmp_path: Path) -> None:
    """Half a gigabyte in 16 KiB; read to its end it would take far longer than it may."""
    packed = zstandard.ZstdCompressor(level=1).compressobj()
    with (tmp_path / PROVENANCE_NAME).open("wb") as bomb:
        bomb.write(packed.compress(b'{"source": "'))
        for _ in range(512):
            bomb.write(packed.compress(bytes(1 << 20)))
        bomb.write(packed.flush())
    tracemalloc.start()
    started_s = time.monotonic()
    assert refusal_of(tmp_path) == "shards.provenance-damaged"
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.monotonic() - started_s < 2.0
    assert peak_bytes < 64 << 20


def test_a_pipe_or_a_directory_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / PROVENANCE_NAME
    os.mkfifo(path)
    assert refusal_of(tmp_path) == "shards.provenance-damaged"
    path.unlink()
    path.mkdir()
    assert refusal_of(tmp_path) == "shards.provenance-damaged"
