"""What of several sources are copies: across them, within one, and where that is not known."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.shard_files import edit_manifest, encode, manifest_value

from apr.errors import DamagedFile
from apr.shards.manifest import read_manifest
from apr.shards.reader import ShardReader
from apr.train.batches import TokenRows
from apr.train.copies import (
    Copies,
    SourceDocuments,
    count_copies,
    documents_of_directory,
    documents_of_rows,
)

A, B, C = "hello hello\n", "x = 1\n" * 5, "naïve\n"


def opened(directory: Path, texts: Sequence[str], name: str) -> SourceDocuments:
    shards = ShardReader.open(encode(directory, texts, name=name)[0])
    return documents_of_rows(TokenRows(shards, 0, shards.num_tokens, 8))


def size_of(directory: Path, text: str) -> int:
    """Tokens of a document, its separator included."""
    return encode(directory, [text], name=f"alone-{len(text)}")[1].total_tokens


@pytest.mark.parametrize("documents_at_once", [1, 2, 1 << 20])
def test_a_text_counts_once_over_all_sources(tmp_path: Path, documents_at_once: int) -> None:
    a, b, c = (size_of(tmp_path, text) for text in (A, B, C))
    sources = [opened(tmp_path, [A, B, A], "one"), opened(tmp_path, [C, B, C, B], "other")]
    found = count_copies(sources, documents_at_once=documents_at_once)
    assert found.unique_tokens == a + b + c
    assert found.num_tokens_by_source == (2 * a + b, 2 * b + 2 * c)
    assert found.copied_within == (a, b + c)
    assert found.unique_tokens_by_source == [a + b, b + c]
    assert found.copied_across == b
    assert found.facts() == {"unique_tokens": a + b + c, "copied_tokens": a + 2 * b + c}
    assert found.times_over == (2 * a + 3 * b + 2 * c) / (a + b + c)


def test_other_documents_are_no_copies(tmp_path: Path) -> None:
    found = count_copies([opened(tmp_path, [A, B], "one"), opened(tmp_path, [C], "other")])
    assert found.copied_tokens == 0
    assert found.unique_tokens == found.num_tokens > 0
    assert found.notice() is None


def test_half_a_hash_makes_no_copy(tmp_path: Path) -> None:
    manifest = encode(tmp_path, [A])[1]
    hashes = np.zeros((3, 16), np.uint8)
    hashes[:, 15] = [1, 2, 1]
    sizes = np.array([5, 7, 5])
    source = SourceDocuments("made up", manifest, 17, hashes, sizes)
    assert count_copies([source]).copied_within == (5,)


def test_what_is_set_aside_is_no_original(tmp_path: Path) -> None:
    shards = ShardReader.open(encode(tmp_path, [A, B, A])[0])
    rest = documents_of_rows(TokenRows(shards, int(shards.document_ends[0]), shards.num_tokens, 8))
    assert rest.sizes.tolist() == [size_of(tmp_path, B), size_of(tmp_path, A)]
    assert count_copies([rest]).copied_tokens == 0


def test_the_index_files_say_the_same_as_the_opened_shards(tmp_path: Path) -> None:
    directory, manifest = encode(tmp_path, [A, B, A, C, B])
    assert manifest.shard_count > 1
    shards = ShardReader.open(directory)
    closed = documents_of_directory(directory, manifest)
    whole = documents_of_rows(TokenRows(shards, 0, shards.num_tokens, 8))
    assert np.array_equal(closed.hashes, whole.hashes)
    assert np.array_equal(closed.sizes, whole.sizes)
    assert count_copies([closed]) == count_copies([whole])


def test_a_manifest_alone_leaves_a_doubt(tmp_path: Path) -> None:
    directory, manifest = encode(tmp_path, [A, A])
    other = opened(tmp_path, [B, B], "other")
    for index in directory.glob("*.idx"):
        index.unlink()
    found = count_copies([documents_of_directory(directory, manifest), other])
    assert found.unique_tokens == manifest.total_tokens + size_of(tmp_path, B)
    assert found.facts()["copied_tokens"] is None
    assert found.facts()["copied_tokens_reason"] == f"{directory} has no index files"
    assert str(found.notice()).endswith(f"more may be copies: {directory} has no index files")


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    directory, manifest = encode(tmp_path, [A, B])
    index = next(directory.glob("*.idx"))
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(DamagedFile) as refused:
        documents_of_directory(directory, manifest)
    assert refused.value.id == "shards.index-damaged"


def _repaired(directory: Path, **fields: object) -> SourceDocuments:
    """The source as a repair would have left it."""
    statistics = manifest_value(directory)["statistics"] | {
        "num_documents_changed_by_normalizer": None,
        "num_documents_with_control_text": None,
    }
    repaired = {"unknown": [], "num_compared": 0, "num_same_ids": 0, "empty_files": []}
    edit_manifest(directory, encoder=None, repaired=repaired, statistics=statistics, **fields)
    return documents_of_directory(directory, read_manifest(directory)[0])


@pytest.mark.parametrize("num_changed", [0, 1])
def test_hashes_of_another_kind_leave_a_doubt(tmp_path: Path, num_changed: int) -> None:
    repaired = _repaired(encode(tmp_path, [A, B], name="repaired")[0])
    original, manifest = encode(tmp_path, [A, C], name="original")
    statistics = manifest_value(original)["statistics"]
    edit_manifest(
        original, statistics=statistics | {"num_documents_changed_by_normalizer": num_changed}
    )
    other = documents_of_directory(original, read_manifest(original)[0])
    found = count_copies([repaired, other])
    assert found.unique_tokens == found.num_tokens - size_of(tmp_path, A)
    assert (found.doubt is not None) == bool(num_changed)
    assert manifest.total_tokens == other.num_tokens


def test_what_a_person_is_told() -> None:
    across = Copies((530_000, 530_000), (0, 0), 530_000).notice()
    assert across == "530K of 1.06M tokens are copies of documents in another source"
    within = Copies((1_060_000,), (530_000,), 0).notice()
    assert within == "530K of 1.06M tokens are copies of documents in the same source"
    both = str(Copies((1000, 1000), (200, 0), 300).notice())
    assert both == (
        "500 of 2K tokens are copies of documents in another source or, 200 of them, in the same"
    )
    assert Copies((10,), (0,), 0, "x").notice() == "some may be copies: x"
