"""An index holds what was put in, and its size says how much."""

import struct
from pathlib import Path

import pytest

from apr.errors import DamagedFile
from apr.shards.layout import (
    document_hash,
    index_bytes,
    index_name,
    index_size_bytes,
    read_index,
    shard_name,
)


def test_names_sort_in_the_order_of_shards() -> None:
    names = [shard_name(number) for number in (0, 9, 10, 99999)]
    assert names == sorted(names)
    assert (names[0], index_name(names[0])) == ("shard-00000.bin", "shard-00000.idx")


def test_an_index_survives_a_round_trip(tmp_path: Path) -> None:
    ends, hashes = [3, 4, 1 << 40], [document_hash(text) for text in ("a", "b", "c")]
    path = tmp_path / "shard-00000.idx"
    path.write_bytes(index_bytes(ends, b"".join(hashes)))
    assert path.stat().st_size == index_size_bytes(3)
    index = read_index(path, num_tokens=1 << 40, num_documents=3)
    assert index.document_ends.tolist() == ends
    assert [bytes(row) for row in index.document_hashes] == hashes


@pytest.mark.parametrize("ends", [[3, 3, 5], [4, 3, 5], [0, 3, 5], [3, 9, 5]])
def test_ends_that_do_not_ascend_are_refused(tmp_path: Path, ends: list[int]) -> None:
    path = tmp_path / "shard-00000.idx"
    path.write_bytes(index_bytes(ends, bytes(48)))
    with pytest.raises(DamagedFile) as refused:
        read_index(path, num_tokens=5, num_documents=3)
    assert refused.value.id == "shards.index-damaged"


def test_a_last_document_that_ends_before_the_tokens_do_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shard-00000.idx"
    data = index_bytes([2, 3, 4], bytes(48))
    path.write_bytes(data[:16] + struct.pack("<Q", 5) + data[24:])
    with pytest.raises(DamagedFile) as refused:
        read_index(path, num_tokens=5, num_documents=3)
    assert refused.value.found == "document ends out of order"


def test_a_document_is_known_by_its_text_alone() -> None:
    assert document_hash("a") == document_hash("a") != document_hash("a ")
    assert len(document_hash("")) == 16
