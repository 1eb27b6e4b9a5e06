"""What `diff` calls moved, changed and missing, and whose word it has for why."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests import provenance_files
from tests.shard_files import encode, write_corpus
from tests.tokenizer_files import swapped, tokenizer

from apr.errors import Refusal
from apr.shards.encode import encode_corpus
from apr.shards.provenance import PROVENANCE_NAME
from apr.shards.tracing.difference import Difference, compare
from apr.tokenizer.tokenizer import Tokenizer

BEFORE = ["aaa", "bbb", "ccc", "bbb", ""]


def difference(
    root: Path, before: list[str], after: list[str], *, used: Tokenizer | None = None, **how: Any
) -> Difference:
    """Two encodings of one file, before and after it was edited."""
    for name, texts in (("a", before), ("b", after)):
        write_corpus(root / "corpus.jsonl", texts)
        options = how if name == "b" else {}
        made_with = used if name == "b" and used else tokenizer()
        encode_corpus(
            [root / "corpus.jsonl"],
            encoder="reference",
            tokenizer=made_with,
            output=root / name,
            **options,
        )
    return compare(root / "a", root / "b")


def counts(found: Difference) -> tuple[int, int | None, int | None, int, int]:
    return (
        found.num_same,
        found.num_moved,
        found.num_changed,
        found.num_only_in_a,
        found.num_only_in_b,
    )


def test_the_same_corpus_is_the_same_data(tmp_path: Path) -> None:
    found = difference(tmp_path, BEFORE, BEFORE)
    assert found.is_equal
    assert found.fields == {}
    assert counts(found) == (4, 0, 0, 0, 0)
    assert found.is_same_order
    assert found.examples == []


@pytest.mark.parametrize("name", ["shard-00000.bin", "shard-00000.idx"])
def test_equal_manifests_over_other_bytes_are_not_the_same_data(tmp_path: Path, name: str) -> None:
    assert difference(tmp_path, BEFORE, BEFORE).is_equal
    path = tmp_path / "b" / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    for sides in (("a", "b"), ("b", "a")):
        with pytest.raises(Refusal) as refused:
            compare(*(tmp_path / side for side in sides))
        assert refused.value.id == "shards.hash-mismatch"


def test_an_edited_row_was_changed(tmp_path: Path) -> None:
    found = difference(tmp_path, BEFORE, ["aaa", "bbb", "ccd", "bbb", ""])
    assert not found.is_equal
    assert counts(found) == (3, 0, 1, 0, 0)
    (example,) = found.examples
    assert (example.kind, example.document_a, example.document_b) == ("changed", 2, 2)
    assert example.hash_a != example.hash_b
    assert example.place_a == example.place_b == f"{tmp_path / 'corpus.jsonl'}:3"


def test_rows_that_only_shifted_were_moved_and_none_was_changed(tmp_path: Path) -> None:
    found = difference(tmp_path, BEFORE, ["new", *BEFORE])
    assert counts(found) == (0, 4, 0, 0, 1)
    assert found.is_same_order
    assert [example.kind for example in found.examples] == ["moved"] * 4 + ["only in b"]
    assert found.examples[0].place_b == f"{tmp_path / 'corpus.jsonl'}:2"


def test_two_rows_that_were_exchanged_stand_in_another_order(tmp_path: Path) -> None:
    found = difference(tmp_path, ["aaa", "bbb"], ["bbb", "aaa"])
    assert counts(found) == (0, 2, 0, 0, 0)
    assert not found.is_same_order
    assert not found.is_equal
    assert found.fields.keys() == {"shards"}


def test_a_copy_more_or_less_is_counted(tmp_path: Path) -> None:
    found = difference(tmp_path, ["x", "x", "x"], ["x", "y", "x"])
    assert counts(found) == (2, 0, 1, 0, 0)
    again = compare(tmp_path / "b", tmp_path / "a")
    assert counts(again) == (2, 0, 1, 0, 0)


def test_why_a_document_is_missing_is_in_the_other_sides_rows(tmp_path: Path) -> None:
    found = difference(tmp_path, ["aaa", "", "ccc", "gone"], ["aaa", "new", ""])
    assert counts(found) == (1, 0, 0, 2, 1)
    assert found.why_only_in_a == {"dropped: empty": 1, "not in the input": 1}
    assert found.why_only_in_b == {"dropped: empty": 1}
    assert {example.why for example in found.examples} == {"dropped: empty", "not in the input"}


def test_a_quarantined_row_is_a_reason_too(tmp_path: Path) -> None:
    difference(tmp_path, ["aaa", "bbb"], ["aaa"])
    source = str(tmp_path / "corpus.jsonl")
    rows = [{"source": source, "row": 1}, {"source": source, "row": 2, "quarantined": "not_utf8"}]
    provenance_files.write(tmp_path / "b", rows)
    found = compare(tmp_path / "a", tmp_path / "b")
    assert found.why_only_in_a == {"quarantined: not_utf8": 1}


def test_a_place_that_another_document_took_is_told(tmp_path: Path) -> None:
    found = difference(tmp_path, ["aaa", "bbb"], ["bbb"])
    assert counts(found) == (0, 1, 0, 1, 0)
    assert found.why_only_in_a == {"another document stands there": 1}


def test_without_sources_contents_are_compared_and_the_rest_is_unknown(tmp_path: Path) -> None:
    difference(tmp_path, BEFORE, ["aaa", "ccd", "bbb"])
    (tmp_path / "b" / PROVENANCE_NAME).unlink()
    found = compare(tmp_path / "a", tmp_path / "b")
    assert counts(found) == (2, None, None, 2, 1)
    assert found.why_only_in_a == {"unknown": 2}
    assert set(found.unknown) == {"num_moved", "num_changed"}
    assert found.examples[0].place_a is not None


def test_settings_that_differ_are_named_with_both_values(tmp_path: Path) -> None:
    used = tokenizer(swapped("he", "hel"))
    found = difference(tmp_path, BEFORE, BEFORE, used=used, eos_policy="between", shard_tokens=5)
    assert counts(found) == (4, 0, 0, 0, 0)
    assert {"tokenizer_fingerprint", "eos_policy", "shard_count"} <= found.fields.keys()
    assert found.fields["eos_policy"] == ("after", "between")
    assert found.fields["eos_token_count"] == (4, 3)
    (tmp_path / "more").mkdir()
    longer = difference(tmp_path / "more", BEFORE, [*BEFORE, "", "aaaa"])
    assert longer.fields["drops.empty"] == (1, 2)
    assert longer.fields["statistics.longest_run"] == (3, 4)


def test_examples_are_as_many_as_wanted_of_each_kind(tmp_path: Path) -> None:
    write_corpus(tmp_path / "a.jsonl", [])
    one, _ = encode(tmp_path, [f"a{number}" for number in range(9)], name="one")
    two, _ = encode(tmp_path, [f"b{number}" for number in range(9)], name="two")
    for number, expected in ((0, 0), (2, 4), (50, 18)):
        assert len(compare(one, two, num_examples=number).examples) == expected


def test_the_answer_is_json(tmp_path: Path) -> None:
    value = difference(tmp_path, BEFORE, ["aaa"]).as_dict()
    assert json.loads(json.dumps(value))["equal"] is False
    assert value["a"] == str(tmp_path / "a")


def test_sources_of_other_shards_are_refused(tmp_path: Path) -> None:
    difference(tmp_path, BEFORE, BEFORE)
    provenance_files.write(tmp_path / "b", [{"source": "a"}])
    with pytest.raises(Refusal) as refused:
        compare(tmp_path / "a", tmp_path / "b")
    assert refused.value.id == "shards.provenance-damaged"
    assert refused.value.found == "1 documents"
