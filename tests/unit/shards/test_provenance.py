"""Where documents came from: read back in order, in bounded memory, from several frames."""

from pathlib import Path

import pytest
from tests.provenance_files import compress, lines, write

from apr.errors import PathNotFound, Refusal
from apr.shards.provenance import (
    PROVENANCE_NAME,
    Row,
    document_place,
    document_places,
    has_provenance,
    read_provenance,
)

FIRST = [
    {"source": "a.py"},
    {"source": "b.bin", "dropped": "binary"},
    {"source": "r.jsonl", "row": 1},
]
SECOND = [
    {"source": "r.jsonl", "row": 2, "quarantined": "invalid_json"},
    {"source": "r.jsonl", "row": 3},
]


def test_every_row_comes_back_in_order_across_frames(tmp_path: Path) -> None:
    write(tmp_path, FIRST, SECOND)
    assert list(read_provenance(tmp_path)) == [
        Row("a.py"),
        Row("b.bin", dropped="binary"),
        Row("r.jsonl", 1),
        Row("r.jsonl", 2, quarantined="invalid_json"),
        Row("r.jsonl", 3),
    ]


def test_a_document_is_found_by_its_number_among_documents(tmp_path: Path) -> None:
    write(tmp_path, FIRST, SECOND)
    assert document_place(tmp_path, 0) == Row("a.py")
    found = document_place(tmp_path, 2)
    assert found is not None
    assert found.place == "r.jsonl:3"
    assert document_places(tmp_path, [2, 0, 0]) == {0: Row("a.py"), 2: Row("r.jsonl", 3)}
    assert document_places(tmp_path, []) == {}


def test_a_directory_that_does_not_say_is_no_error_to_ask(tmp_path: Path) -> None:
    assert not has_provenance(tmp_path)
    assert document_place(tmp_path, 0) is None
    with pytest.raises(PathNotFound):
        list(read_provenance(tmp_path))


def test_a_file_that_ends_before_the_document_belongs_to_other_shards(tmp_path: Path) -> None:
    write(tmp_path, FIRST)
    with pytest.raises(Refusal) as refused:
        document_place(tmp_path, 2)
    assert refused.value.id == "shards.provenance-damaged"
    assert refused.value.found == "2 documents"


def test_a_place_is_found_without_reading_the_rest(tmp_path: Path) -> None:
    frames = compress(lines(FIRST * 20_000)), b"no frame"
    (tmp_path / PROVENANCE_NAME).write_bytes(b"".join(frames))
    assert document_place(tmp_path, 1) == Row("r.jsonl", 1)
