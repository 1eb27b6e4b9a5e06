"""Malformed shard directories: each refused by name, whatever the counts in them claim."""

import json
import os
import shutil
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.shard_files import edit_manifest, encode, manifest_value, rewrite_shard, sha256

from apr.errors import DamagedFile, PathNotFound, Refusal
from apr.shards.reader import ShardReader


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    output, manifest = encode(tmp_path, ["x" * 9] * 6)
    assert manifest.shard_count == 3
    return output


@pytest.fixture
def bounded() -> Iterator[None]:
    """Two seconds and 64 MiB, whatever the files claim."""
    started_s = time.monotonic()
    tracemalloc.start()
    yield
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 64 << 20
    assert time.monotonic() - started_s < 2.0


def refusal_of(directory: Path, **options: Any) -> Refusal:
    with pytest.raises(Refusal) as refused:
        ShardReader.open(directory, **options)
    return refused.value


def cut(path: Path, size_bytes: int) -> None:
    os.truncate(path, path.stat().st_size - size_bytes)


def flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def test_the_sound_directory_opens(shards: Path) -> None:
    assert ShardReader.open(shards).num_tokens == 60
    (shards / "README.md").write_text("notes beside the shards do no harm")
    assert ShardReader.open(shards).num_tokens == 60


def test_what_is_not_there_is_another_matter(tmp_path: Path) -> None:
    with pytest.raises(PathNotFound):
        ShardReader.open(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    assert refusal_of(tmp_path / "file").id == "shards.not-a-directory"
    assert refusal_of(tmp_path).id == "shards.manifest-missing"


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a stale shard beside": (
        lambda d: shutil.copy(d / "shard-00000.bin", d / "shard-00009.bin"),
        "shards.foreign-file",
    ),
    "a stale index beside": (lambda d: (d / "old.idx").touch(), "shards.foreign-file"),
    "a shard gone": (lambda d: (d / "shard-00001.bin").unlink(), "shards.file-missing"),
    "an index gone": (lambda d: (d / "shard-00001.idx").unlink(), "shards.file-missing"),
    "one token cut": (lambda d: cut(d / "shard-00002.bin", 4), "shards.size"),
    "an odd size": (lambda d: cut(d / "shard-00000.bin", 1), "shards.size"),
    "an empty shard": (lambda d: (d / "shard-00000.bin").write_bytes(b""), "shards.size"),
    "a grown shard": (
        lambda d: (d / "shard-00000.bin").write_bytes(bytes(84)),
        "shards.size",
    ),
    "an index cut": (lambda d: cut(d / "shard-00000.idx", 8), "shards.index-damaged"),
    "an empty index": (
        lambda d: (d / "shard-00000.idx").write_bytes(b""),
        "shards.index-damaged",
    ),
    "another magic": (lambda d: flip(d / "shard-00000.idx", 0), "shards.index-damaged"),
    "another version": (lambda d: flip(d / "shard-00000.idx", 8, 1), "shards.index-damaged"),
    "a width of two bytes": (lambda d: flip(d / "shard-00000.idx", 12, 1), "shards.index-damaged"),
    "a token count that lies": (
        lambda d: flip(d / "shard-00000.idx", 23, 7),
        "shards.index-damaged",
    ),
    "a document count that lies": (
        lambda d: flip(d / "shard-00000.idx", 31, 7),
        "shards.index-damaged",
    ),
    "a document that ends nowhere": (
        lambda d: flip(d / "shard-00000.idx", 39, 7),
        "shards.index-damaged",
    ),
    "a directory for a shard": (
        lambda d: [(d / "shard-00000.bin").unlink(), (d / "shard-00000.bin").mkdir()],
        "shards.file-missing",
    ),
    "a pipe for a shard": (
        lambda d: [(d / "shard-00000.bin").unlink(), os.mkfifo(d / "shard-00000.bin")],
        "shards.file-missing",
    ),
    "no manifest": (lambda d: (d / "manifest.json").unlink(), "shards.manifest-missing"),
}


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("verify", [True, False])
def test_damage_shows_at_every_opening(shards: Path, name: str, verify: bool) -> None:
    plant, id = FILES[name]
    plant(shards)
    refusal = refusal_of(shards, verify=verify)
    assert refusal.id == id
    assert isinstance(refusal, DamagedFile) == (id != "shards.foreign-file")


def swap(directory: Path, left: str, right: str) -> None:
    (directory / left).rename(directory / "aside")
    (directory / right).rename(directory / left)
    (directory / "aside").rename(directory / right)


BYTES: dict[str, Callable[[Path], object]] = {
    "a flipped bit of an id": lambda d: flip(d / "shard-00001.bin", 17, 3),
    "a flipped bit that makes an id too large": lambda d: flip(d / "shard-00001.bin", 3, 7),
    "a flipped bit of a document hash": lambda d: flip(d / "shard-00001.idx", 50),
    "a document end moved": lambda d: flip(d / "shard-00001.idx", 32),
    "a shard of another run, equally long": lambda d: np.full(20, 7, "<u4").tofile(
        d / "shard-00000.bin"
    ),
    "a tail of zeros": lambda d: (
        np.pad(np.fromfile(d / "shard-00000.bin", "<u4")[:15], (0, 5))
        .astype("<u4")
        .tofile(d / "shard-00000.bin")
    ),
}


@pytest.mark.parametrize("name", BYTES)
def test_changed_bytes_show_when_verifying(shards: Path, name: str) -> None:
    BYTES[name](shards)
    refusal = refusal_of(shards)
    assert refusal.id == "shards.hash-mismatch"
    assert refusal.exit_code == 4


@pytest.mark.parametrize("suffix", ["bin", "idx"])
def test_two_swapped_shards_show(tmp_path: Path, suffix: str) -> None:
    output, _ = encode(tmp_path, [letter * 9 for letter in "abcdef"])
    swap(output, f"shard-00000.{suffix}", f"shard-00002.{suffix}")
    assert refusal_of(output).id == "shards.hash-mismatch"


MANIFESTS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "shards.manifest-damaged"),
    "half of it": (b'{"schema": "apr-shards-v1", ', "shards.manifest-damaged"),
    "a list": (b"[]", "shards.manifest-damaged"),
    "an empty object": (b"{}", "shards.manifest-damaged"),
    "zeros": (bytes(2000), "shards.manifest-damaged"),
    "not UTF-8": (b'{"schema": "\xff"}', "shards.manifest-damaged"),
    "nested without end": (b"[" * 100_000, "shards.manifest-damaged"),
}


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("name", MANIFESTS)
def test_a_damaged_manifest_is_refused(shards: Path, name: str) -> None:
    data, id = MANIFESTS[name]
    (shards / "manifest.json").write_bytes(data)
    assert refusal_of(shards).id == id


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"text_bytes": 54', '"text_bytes": 55'),
        ('"bytes_per_token": 1.0', '"bytes_per_token": 4.0'),
        ('"drops": {}', '"drops": {"empty": 1}'),
        ('"total_documents": 6', '"total_documents": 7'),
        ('"dtype": "uint32",', '"dtype":  "uint32", "dtypo": 1,'),
    ],
)
def test_an_edited_manifest_is_refused(shards: Path, old: str, new: str) -> None:
    path = shards / "manifest.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert refusal_of(shards).id in {"shards.manifest-edited", "shards.manifest-damaged"}


HUGE = (1 << 63) - 1
SEALED: dict[str, tuple[dict[str, Any], str]] = {
    "u16 shards": ({"dtype": "uint16"}, "damaged"),
    "another schema": ({"schema": "pretokenize-bin-v1"}, "damaged"),
    "an unknown field": ({"compressed": True}, "damaged"),
    "a count that is a text": ({"total_tokens": "60"}, "damaged"),
    "a negative count": ({"text_bytes": -1}, "damaged"),
    "a count beyond 63 bits": ({"total_tokens": HUGE + 1}, "damaged"),
    "a fingerprint that is none": ({"tokenizer_fingerprint": "x"}, "damaged"),
    "an unknown policy": ({"eos_policy": "before"}, "damaged"),
    "a token count that lies": ({"total_tokens": HUGE}, "inconsistent"),
    "a document count that lies": ({"total_documents": HUGE}, "inconsistent"),
    "a shard count that lies": ({"shard_count": 4}, "inconsistent"),
    "separators that lie": ({"eos_token_count": 5}, "inconsistent"),
    "a separator without id": ({"eos_token_id": None}, "inconsistent"),
    "a separator outside the vocabulary": ({"eos_token_id": 260}, "inconsistent"),
    "a vocabulary too small": ({"vocab_size": 50}, "inconsistent"),
    "no shards": ({"shards": [], "shard_count": 0, "total_tokens": 0}, "inconsistent"),
    "nothing, and all counts agree": (
        {"shards": [], "shard_count": 0, "total_tokens": 0, "total_documents": 0}
        | {"eos_token_count": 0},
        "inconsistent",
    ),
}


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("name", SEALED)
def test_a_manifest_that_lies_and_is_sealed_is_refused(shards: Path, name: str) -> None:
    fields, problem = SEALED[name]
    edit_manifest(shards, **fields)
    refusal = refusal_of(shards)
    assert refusal.id == f"shards.manifest-{problem}"
    assert refusal.exit_code == 4


@pytest.mark.parametrize(
    "file",
    ["../shard-00000.bin", "/etc/passwd", "shard-00001.bin", "shard-0.bin", "shard-00000.bin\n"],
)
def test_only_plain_numbered_names_are_opened(shards: Path, file: str) -> None:
    entries = manifest_value(shards)["shards"]
    entries[0]["file"] = file
    edit_manifest(shards, shards=entries)
    assert refusal_of(shards).id == "shards.manifest-inconsistent"


def test_a_shard_outside_the_directory_is_not_opened(shards: Path) -> None:
    """Though it is there, whole, and named by a sealed manifest."""
    for suffix in ("bin", "idx"):
        (shards / f"shard-00000.{suffix}").rename(shards.parent / f"shard-00000.{suffix}")
    entries = manifest_value(shards)["shards"]
    entries[0]["file"] = "../shard-00000.bin"
    edit_manifest(shards, shards=entries)
    assert refusal_of(shards).id == "shards.manifest-inconsistent"


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("count", [0, 7, HUGE])
def test_an_index_and_a_manifest_that_lie_together_are_refused(shards: Path, count: int) -> None:
    """Even with every hash made to fit, the size of the file decides what is allocated."""
    path = shards / "shard-00000.idx"
    data = path.read_bytes()
    kept = data[32:] if count else b""
    path.write_bytes(data[:24] + struct.pack("<Q", count) + kept)
    entries = manifest_value(shards)["shards"]
    total = 6 - entries[0]["num_documents"] + count
    entries[0] |= {"num_documents": count, "index_sha256": sha256(path.read_bytes())}
    edit_manifest(shards, shards=entries, total_documents=total, eos_token_count=total)
    assert refusal_of(shards).id.startswith(("shards.manifest-", "shards.index-"))


def test_ids_outside_the_vocabulary_are_refused(shards: Path) -> None:
    rewrite_shard(shards, 1, [64] * 9 + [259] + [64] * 8 + [260, 259])
    refusal = refusal_of(shards)
    assert refusal.id == "shards.id-range"
    assert "260" in refusal.found


@pytest.mark.parametrize("ids", [[64] * 19 + [259], [259] * 3 + [64] * 17])
def test_separators_that_do_not_fit_the_policy_are_refused(shards: Path, ids: list[int]) -> None:
    rewrite_shard(shards, 1, ids)
    refusal = refusal_of(shards)
    assert refusal.id == "shards.separators"
    assert refusal.expected.startswith("6, as eos_policy after demands")


def test_a_faithful_rewrite_passes(shards: Path) -> None:
    rewrite_shard(shards, 1, ([64] * 9 + [259]) * 2)
    assert ShardReader.open(shards).read(20, 21).tolist() == [64]


@pytest.mark.usefixtures("bounded")
def test_a_sparse_manifest_is_not_read(shards: Path) -> None:
    os.truncate(shards / "manifest.json", 1 << 40)
    assert refusal_of(shards, verify=False).id == "shards.manifest-damaged"


def test_json_escapes_cannot_smuggle_in_half_characters(shards: Path) -> None:
    path = shards / "manifest.json"
    path.write_text(path.read_text().replace('"<|endoftext|>"', json.dumps("\ud800")))
    assert refusal_of(shards).id == "shards.manifest-damaged"
