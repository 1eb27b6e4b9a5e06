"""Counts of ids, against counting one by one, whatever the chunks they are read in."""

from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.shard_files import encode, ids_of, manifest_value

from apr.files import sha256_file
from apr.shards.reader import ShardReader
from apr.shards.verifying.recount import Recount, recount

TEXTS = ["aaaa", "a", "bbbbbbb", "abab", "b" * 30, "x = 1\n" * 4, "naïve", "a" * 12]


@pytest.fixture(scope="module", params=["after", "between", "none"])
def shards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ShardReader:
    directory = tmp_path_factory.mktemp("shards")
    output, _ = encode(directory, TEXTS, eos_policy=request.param)
    return ShardReader.open(output)


def documents(reader: ShardReader) -> list[list[int]]:
    return [reader.document_ids(index).tolist() for index in range(reader.num_documents)]


def brute_force(reader: ShardReader) -> tuple[int, dict[int, int], float]:
    texts = documents(reader)
    every = [id for text in texts for id in text]
    counts = {id: every.count(id) for id in every}
    shares = np.array(list(counts.values())) / len(every)
    runs = [len(list(run)) for text in texts for _, run in groupby(text)]
    return max(runs), counts, float(-(shares * np.log2(shares)).sum())


@pytest.mark.parametrize("chunk_tokens", [1, 2, 3, 7, 50, 1000])
def test_the_counts_are_those_of_counting_one_by_one(
    shards: ShardReader, chunk_tokens: int
) -> None:
    found = recount(shards, chunk_tokens=chunk_tokens)
    longest_run, counts, entropy_bits = brute_force(shards)
    assert found.longest_run == longest_run == 30
    assert {id: int(found.counts[id]) for id in np.flatnonzero(found.counts)} == counts
    assert found.entropy_bits == pytest.approx(entropy_bits, abs=1e-12)
    assert found.num_text_tokens == sum(counts.values())
    assert found.largest_text_id == max(counts)
    assert found.num_separators == shards.manifest.eos_token_count
    assert found.num_misplaced_separators == 0
    assert found.largest_id == max(counts | ({259: 1} if found.num_separators else {}))
    assert found.shard_sha256 == [
        sha256_file(shards.directory / shard["file"])
        for shard in manifest_value(shards.directory)["shards"]
    ]


def changed(directory: Path, place: int, id: int) -> Recount:
    """The counts after one id of the first shard was replaced on disk."""
    path = directory / "shard-00000.bin"
    before = path.read_bytes()
    ids = ids_of(directory, 0)
    ids[place] = id
    np.array(ids, "<u4").tofile(path)
    found = recount(ShardReader.open(directory, verify=False), chunk_tokens=4)
    path.write_bytes(before)
    return found


def test_a_separator_in_the_wrong_place_is_counted(tmp_path: Path) -> None:
    output, _ = encode(tmp_path, TEXTS)
    assert ids_of(output, 0)[4] == 259
    moved = changed(output, 4, 64)
    assert (moved.num_separators, moved.num_misplaced_separators) == (len(TEXTS) - 1, 1)
    added = changed(output, 2, 259)
    assert (added.num_separators, added.num_misplaced_separators) == (len(TEXTS) + 1, 1)


def test_an_id_beyond_the_vocabulary_is_seen_and_takes_no_memory(tmp_path: Path) -> None:
    output, _ = encode(tmp_path, TEXTS)
    found = changed(output, 0, 0xFFFFFFFF)
    assert found.largest_id == 0xFFFFFFFF
    assert len(found.counts) == 260


@given(
    texts=st.lists(st.text("ab", min_size=1, max_size=9), min_size=1, max_size=12),
    chunk_tokens=st.integers(1, 9),
    policy=st.sampled_from(["after", "between", "none"]),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_documents_in_any_chunks(
    tmp_path: Path, texts: list[str], chunk_tokens: int, policy: str
) -> None:
    output, manifest = encode(tmp_path, texts, eos_policy=policy, shard_tokens=7, overwrite=True)
    found = recount(ShardReader.open(output, verify=False), chunk_tokens=chunk_tokens)
    assert found.longest_run == manifest.statistics.longest_run
    assert found.num_misplaced_separators == 0
    assert found.num_separators == manifest.eos_token_count
    assert found.entropy_bits == pytest.approx(manifest.statistics.unigram_entropy_bits, abs=1e-6)
