"""Shards as one stream, across their borders."""

from pathlib import Path

import numpy as np
import pytest
from tests.shard_files import TEXTS, encode, ids_of

from apr.errors import Refusal
from apr.progress import Progress
from apr.shards.reader import ShardReader


@pytest.fixture
def reader(tmp_path: Path) -> ShardReader:
    output, _ = encode(tmp_path, TEXTS * 4)
    return ShardReader.open(output)


def everything(reader: ShardReader) -> list[int]:
    num_shards = reader.manifest.shard_count
    return [id for index in range(num_shards) for id in ids_of(reader.directory, index)]


def test_the_stream_is_the_shards_end_to_end(reader: ShardReader) -> None:
    assert reader.manifest.shard_count > 3
    stream = reader.read(0, reader.num_tokens)
    assert stream.tolist() == everything(reader)
    assert stream.dtype == np.uint32
    assert stream.flags.writeable


def test_every_piece_of_the_stream_can_be_read(reader: ShardReader) -> None:
    stream = everything(reader)
    for start in range(0, len(stream), 7):
        for stop in range(start, len(stream) + 1, 11):
            assert reader.read(start, stop).tolist() == stream[start:stop]


def test_positions_know_their_document(reader: ShardReader) -> None:
    numbers = reader.document_numbers(0, reader.num_tokens)
    assert numbers.dtype == np.int64
    lengths = np.diff(reader.document_ends, prepend=np.uint64(0)).astype(np.int64)
    assert numbers.tolist() == np.repeat(np.arange(len(TEXTS) * 4), lengths).tolist()
    assert reader.document_numbers(5, 9).tolist() == numbers[5:9].tolist()


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 10**9)])
def test_positions_outside_the_stream_are_an_error(
    reader: ShardReader, start: int, stop: int
) -> None:
    for read in (reader.read, reader.document_numbers):
        with pytest.raises(IndexError):
            read(start, stop)


def test_opening_without_verifying_reads_no_token(tmp_path: Path) -> None:
    output, manifest = encode(tmp_path)
    reports: list[Progress] = []
    fast = ShardReader.open(output, verify=False, progress=reports.append)
    assert reports == []
    assert fast.num_tokens == manifest.total_tokens
    ShardReader.open(output, progress=reports.append)
    assert reports[-1].done == reports[-1].total == manifest.total_tokens * 4


def test_the_identity_is_the_hash_of_the_manifest(tmp_path: Path) -> None:
    first, _ = encode(tmp_path)
    second, _ = encode(tmp_path, name="again")
    other, _ = encode(tmp_path, [*TEXTS, "more"], name="other")
    identities = [ShardReader.open(path).manifest_sha256 for path in (first, second, other)]
    assert identities[0] == identities[1] != identities[2]


def test_text_where_shards_are_asked_for_is_to_be_encoded(tmp_path: Path) -> None:
    (tmp_path / "part-0.jsonl").write_text('{"content": "a"}\n')
    with pytest.raises(Refusal) as refused:
        ShardReader.open(tmp_path)
    assert refused.value.id == "shards.manifest-missing"
    assert f"apr tokenize encode-corpus --corpus {tmp_path} " in refused.value.fix


def test_a_directory_of_directories_of_shards_names_them(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    train, _ = encode(tmp_path / "shards", name="train")
    val, _ = encode(tmp_path / "shards", name="val")
    (tmp_path / "shards" / "tokenizer").mkdir()
    (tmp_path / "shards" / "tokenizer" / "manifest.json").write_text("{}")
    with pytest.raises(Refusal) as refused:
        ShardReader.open(tmp_path / "shards")
    assert refused.value.id == "shards.manifest-missing"
    assert refused.value.fix == f"name a directory of shards in it: {train}, {val}"
