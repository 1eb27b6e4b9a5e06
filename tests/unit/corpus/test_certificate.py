"""certificate.json: read strictly, and it fits no other documents."""

import json
from pathlib import Path
from typing import Any

import pytest

from apr.corpus.certificate import (
    Certificate,
    DocumentTally,
    Draw,
    ExactCheck,
    NearCheck,
    NgramCheck,
    read_certificate,
    write_certificate,
)
from apr.errors import Refusal


def tally(*texts: str) -> DocumentTally:
    result = DocumentTally()
    for text in texts:
        result.add(text)
    return result


def certificate(**changes: Any) -> Certificate:
    return Certificate(
        **{
            "train": tally("a", "b").as_set(),
            "held_out": tally("c").as_set(),
            "split": Draw(group="repo", fraction=0.01, seed=3),
            "checks": [
                ExactCheck(rule="equal", num_removed=1),
                NearCheck(
                    rule="similar",
                    jaccard=0.8,
                    shingle_tokens=5,
                    num_compared=0,
                    num_removed=0,
                    largest_jaccard_left=None,
                ),
                NgramCheck(
                    rule="shared",
                    words=13,
                    containment=0.5,
                    evaluation_sets=[],
                    num_contaminated=0,
                    num_overlapping=0,
                    largest_containment_left=None,
                    largest_overlap_left=0.0,
                    misses="paraphrase",
                ),
            ],
            "removals": [],
            "refines": None,
        }
        | changes
    )


def rewrite(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | fields, indent=2) + "\n")


def refused_id(path: Path) -> str:
    with pytest.raises(Refusal) as refused:
        read_certificate(path)
    assert refused.value.exit_code == 4
    return refused.value.id


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    sha256 = write_certificate(path, certificate())
    assert read_certificate(path) == (certificate(), sha256)
    assert write_certificate(tmp_path / "again.json", read_certificate(path)[0]) == sha256


def test_a_set_has_no_order_and_counts_copies() -> None:
    once, again = tally("a", "b").as_set(), tally("b", "a", "b").as_set()
    assert once.documents_sha256 == again.documents_sha256
    assert (once.num_documents, again.num_documents) == (2, 3)
    assert (once.text_bytes, again.text_bytes) == (2, 3)
    assert tally("a").as_set().documents_sha256 != once.documents_sha256


def test_each_set_has_a_side_and_others_have_none() -> None:
    sets = certificate()
    assert sets.require_side(tally("b", "a").as_set().documents_sha256, "x") == "train"
    assert sets.require_side(tally("c").as_set().documents_sha256, "x") == "held-out"
    with pytest.raises(Refusal) as refused:
        sets.require_side(tally("a").as_set().documents_sha256, "shards")
    assert (refused.value.id, refused.value.where) == ("corpus.certificate-mismatch", "shards")
    alone = certificate(held_out=None)
    assert alone.side_of(tally("c").as_set().documents_sha256) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"unknown": 1},
        {"schema": "apr-certificate-v2"},
        {"train": None},
        {"checks": [{"kind": "exact", "rule": "x", "num_removed": 0, "num_shared": 1}]},
        {"checks": [{"kind": "guess"}]},
        {"split": {"group": "repo", "fraction": 2.0, "seed": 0}},
        {"refines": "abc"},
    ],
)
def test_what_is_no_certificate_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = tmp_path / "certificate.json"
    write_certificate(path, certificate())
    rewrite(path, **fields)
    assert refused_id(path) == "corpus.certificate-damaged"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"a": NaN}', '{"a":1,"a":2}', "\ufeff{}", "[" * 9999]
)
def test_what_is_not_even_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "certificate.json"
    path.write_text(text)
    assert refused_id(path) == "corpus.certificate-damaged"


def test_a_number_edited_by_hand_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    write_certificate(path, certificate())
    fields = json.loads(path.read_bytes())
    rewrite(path, train=fields["train"])
    assert read_certificate(path)[0] == certificate()
    rewrite(path, train=fields["train"] | {"num_documents": 3})
    assert refused_id(path) == "corpus.certificate-edited"
    rewrite(path, train=fields["train"], certificate_content_sha256=None)
    assert refused_id(path) == "corpus.certificate-edited"


def test_a_file_that_is_not_there_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        read_certificate(tmp_path / "none.json")
    assert refused.value.id == "files.not-found"
    (tmp_path / "large.json").write_bytes(b" " * (9 << 20))
    assert refused_id(tmp_path / "large.json") == "corpus.certificate-damaged"
