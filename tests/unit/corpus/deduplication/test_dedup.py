"""Deduplication on disk: who stays, what the list and the certificate say, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.corpus_files import documents_in, program, texts_in, write_jsonl, write_tree
from tests.unit.corpus.deduplication.test_near_duplicates import edited, similarity

from apr.corpus.certificate import DocumentTally, read_certificate
from apr.corpus.deduplication.dedup import Deduplication, dedup_corpus, documents_left
from apr.corpus.reading.documents import document_hash
from apr.corpus.removals import Removals
from apr.corpus.splitting.split import split_corpus
from apr.corpus.splitting.split_rule import SplitRule
from apr.errors import Refusal
from apr.progress import Progress

ONE, TWO, THREE, FOUR = map(program, (1, 2, 3, 4))
CRLF = TWO.replace("\n", "\r\n")


def dedup(
    folder: Path, train: list[str], held_out: list[str] | None = None, **options: Any
) -> Deduplication:
    rows = write_jsonl(folder / "train.jsonl", [{"content": text} for text in train])
    sides: list[Path] = []
    if held_out is not None:
        sides = [write_jsonl(folder / "val.jsonl", [{"content": text} for text in held_out])]
    return dedup_corpus([rows], held_out=sides, output=folder / "out.jsonl", **options)


def entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def left(folder: Path) -> list[str]:
    """The training texts as a reader of the list sees them."""
    of_list = Removals.load([folder / "out.jsonl"]).filter()
    texts = texts_in(folder / "train.jsonl")
    return [text for text in texts if of_list.reason(document_hash(text)) is None]


def test_a_corpus_without_repetition_loses_nothing(tmp_path: Path) -> None:
    found = dedup(tmp_path, [ONE, TWO], [THREE, FOUR])
    assert entries(tmp_path) == []
    assert found.removals.num_entries == 0
    assert left(tmp_path) == [ONE, TWO]
    assert found.certificate is not None
    assert found.certificate.train == found.train_before


def test_the_first_of_equal_texts_stays(tmp_path: Path) -> None:
    dedup(tmp_path, [TWO, ONE, CRLF, TWO, ONE])
    assert left(tmp_path) == [TWO, ONE]
    listed = [(each["row"], each["reason"], each.get("keep")) for each in entries(tmp_path)]
    assert listed == [
        (3, "duplicate", None),
        (4, "duplicate", "first"),
        (5, "duplicate", "first"),
    ]
    kept = entries(tmp_path)[0]["kept"]
    assert kept == {
        "source": str(tmp_path / "train.jsonl"),
        "row": 1,
        "hash": document_hash(TWO).hex(),
    }


def test_near_duplicates_follow_the_first(tmp_path: Path) -> None:
    close = edited(ONE, 20)
    found = dedup(tmp_path, [ONE, TWO, close, close, edited(ONE, 3)])
    assert left(tmp_path) == [ONE, TWO, edited(ONE, 3)]
    assert [each["reason"] for each in entries(tmp_path)] == ["near_duplicate"] * 2
    assert all("keep" not in each and 0.8 <= each["jaccard"] < 1 for each in entries(tmp_path))
    assert {each["kept"]["row"] for each in entries(tmp_path)} == {1}
    assert found.certificate is None
    assert not (tmp_path / "out.certificate.json").exists()


def test_copies_only_when_that_is_asked_for(tmp_path: Path) -> None:
    found = dedup(tmp_path, [ONE, edited(ONE, 20), ONE], [TWO], jaccard=None)
    assert left(tmp_path) == [ONE, edited(ONE, 20)]
    assert found.certificate is not None
    assert [check.kind for check in found.certificate.checks] == ["exact"]


def test_a_held_out_document_stays_and_what_repeats_it_goes(tmp_path: Path) -> None:
    train = [TWO, CRLF, edited(THREE, 25), FOUR, FOUR]
    found = dedup(tmp_path, train, [TWO, THREE, TWO])
    assert left(tmp_path) == [FOUR]
    assert found.search.counts == {
        "duplicate_of_held_out": 2,
        "near_duplicate_of_held_out": 1,
        "duplicate": 1,
    }
    assert sum(found.search.sizes_bytes.values()) == sum(len(text) for text in train) - len(FOUR)
    assert [each.get("keep") for each in entries(tmp_path)] == [None, None, None, "first"]
    assert {each["kept"]["source"] for each in entries(tmp_path)[:3]} == {
        str(tmp_path / "val.jsonl")
    }


def test_the_certificate_names_what_the_list_leaves(tmp_path: Path) -> None:
    found = dedup(tmp_path, [ONE, ONE, TWO, edited(THREE, 25)], [THREE])
    certificate, sha256 = read_certificate(tmp_path / "out.certificate.json")
    assert (certificate, sha256) == (found.certificate, found.certificate_sha256)
    train, held_out = DocumentTally(), DocumentTally()
    for text in left(tmp_path):
        train.add(text)
    held_out.add(THREE)
    assert certificate.train == train.as_set()
    assert certificate.held_out == held_out.as_set()
    assert certificate.removals == Removals.load([tmp_path / "out.jsonl"]).lists
    near = certificate.checks[1]
    assert near.kind == "near"
    assert (near.num_removed, near.jaccard, near.num_compared) == (1, 0.8, 1)


def test_the_most_similar_text_that_stays_is_measured(tmp_path: Path) -> None:
    """Edited in one line of seven it stays, and what is left is what was measured."""
    close = program(1) + program(51, lines=10)
    expected = similarity(program(1), close)
    assert 0.7 < expected < 0.8
    found = dedup(tmp_path, [close, TWO], [ONE], jaccard=0.8)
    assert left(tmp_path) == [close, TWO]
    assert found.certificate is not None
    near = found.certificate.checks[1]
    assert near.kind == "near"
    assert (near.num_compared, near.largest_jaccard_left) == (0, None)
    again = dedup(tmp_path, [close, TWO], [ONE, program(51)], jaccard=0.8, overwrite=True)
    assert left(tmp_path) == [close, TWO]
    assert again.certificate is not None
    near = again.certificate.checks[1]
    assert near.kind == "near"
    assert (near.num_compared, near.largest_jaccard_left) == (1, round(expected, 6))


def test_documents_are_told_apart_behind_copies_and_beyond_a_batch(tmp_path: Path) -> None:
    """Copies and held-out documents come before; a batch holds some 260,000 characters."""
    before = [program(100 + at, lines=160) for at in range(60)]
    assert sum(map(len, before)) > 1.5 * (1 << 18)
    close, like_held_out = edited(TWO, 20), edited(ONE, 20)
    train = [THREE, THREE, edited(ONE, 25), *before, TWO, close, like_held_out, FOUR]
    dedup(tmp_path, train, [ONE])
    assert left(tmp_path) == [THREE, *before, TWO, FOUR]
    assert [(each["row"], each["reason"]) for each in entries(tmp_path)] == [
        (2, "duplicate"),
        (3, "near_duplicate_of_held_out"),
        (65, "near_duplicate"),
        (66, "near_duplicate_of_held_out"),
    ]


def test_a_near_duplicate_of_held_out_text_is_no_reason_to_remove_another(tmp_path: Path) -> None:
    """What goes because of held-out text is not what later documents are compared with."""
    found = dedup(tmp_path, [edited(ONE, 20), edited(ONE, 25), TWO], [ONE])
    assert [each["kept"]["source"] for each in entries(tmp_path)] == [
        str(tmp_path / "val.jsonl")
    ] * 2
    assert found.search.counts == {"near_duplicate_of_held_out": 2}


def test_the_worst_is_shown_first(tmp_path: Path) -> None:
    large = program(9, lines=100)
    found = dedup(tmp_path, [large, large, THREE, ONE, ONE, TWO], [THREE], num_shown=2)
    worst = found.search.worst
    assert [(each["reason"], each["row"]) for each in worst] == [
        ("duplicate_of_held_out", 3),
        ("duplicate", 2),
    ]


def test_a_directory_holds_both_files(tmp_path: Path) -> None:
    write_tree(tmp_path / "in", {"a.py": ONE, "b.py": ONE})
    write_tree(tmp_path / "val", {"c.py": TWO})
    dedup_corpus([tmp_path / "in"], held_out=[tmp_path / "val"], output=tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "removals.jsonl",
        "certificate.json",
    }


def test_a_split_and_its_certificate_are_carried_on(tmp_path: Path) -> None:
    rows = [{"content": program(number // 2)} for number in range(60)]
    corpus = write_jsonl(tmp_path / "in.jsonl", rows)
    split = split_corpus([corpus], output=tmp_path / "data", rule=SplitRule("file", 0.3))
    options: dict[str, Any] = {
        "held_out": [tmp_path / "data" / "held-out"],
        "certificate": tmp_path / "data" / "certificate.json",
    }
    found = dedup_corpus([tmp_path / "data" / "train"], output=tmp_path / "a.jsonl", **options)
    assert found.certificate is not None
    assert found.certificate.refines == split.certificate_sha256
    assert found.certificate.split is not None
    assert found.certificate.split.fraction == 0.3
    other = write_jsonl(tmp_path / "other.jsonl", [{"content": ONE}, {"content": TWO}])
    with pytest.raises(Refusal) as refused:
        dedup_corpus([other], output=tmp_path / "b.jsonl", **options)
    assert refused.value.id == "corpus.certificate-mismatch"
    assert not (tmp_path / "b.jsonl").exists()


def test_the_same_documents_on_both_sides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        dedup(tmp_path, [ONE, TWO], [TWO, ONE])
    assert refused.value.id == "corpus.nothing-left"
    assert {path.name for path in tmp_path.iterdir()} == {"train.jsonl", "val.jsonl"}


def test_the_same_directory_on_both_sides_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path / "in", {"a.py": ONE, "sub/b.py": TWO})
    for held_out in (
        tmp_path / "in",
        tmp_path / "in" / "sub",
        tmp_path,
        tmp_path / "x" / ".." / "in",
    ):
        with pytest.raises(Refusal) as refused:
            dedup_corpus([tmp_path / "in"], held_out=[held_out], output=tmp_path / "o.jsonl")
        assert (refused.value.id, refused.value.exit_code) == ("corpus.sides-overlap", 2)


def test_an_old_list_is_not_replaced_unasked_and_takes_its_certificate_along(
    tmp_path: Path,
) -> None:
    dedup(tmp_path, [ONE, ONE], [TWO])
    with pytest.raises(Refusal) as refused:
        dedup(tmp_path, [ONE, ONE])
    assert refused.value.id == "files.exists"
    assert (tmp_path / "out.certificate.json").exists()
    dedup(tmp_path, [ONE, ONE], overwrite=True)
    assert not (tmp_path / "out.certificate.json").exists()


def test_input_that_changes_between_the_readings_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path / "in", {"a.py": ONE, "b.py": TWO, "c.py": THREE})
    changed = TWO.replace("1", "2")

    def change(progress: Progress) -> None:
        if progress.activity == "comparing":
            (tmp_path / "in" / "b.py").write_text(changed)

    with pytest.raises(Refusal) as refused:
        dedup_corpus([tmp_path / "in"], output=tmp_path / "o.jsonl", progress=change)
    assert refused.value.id == "corpus.input-changed"
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert len(changed) == len(TWO)


def test_the_output_is_not_read(tmp_path: Path) -> None:
    write_tree(tmp_path / "in", {"a.py": ONE})
    with pytest.raises(Refusal) as refused:
        dedup_corpus([tmp_path / "in"], output=tmp_path / "in" / "out.jsonl")
    assert refused.value.id == "files.output-overlaps-input"


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    train = [{"content": text} for text in (ONE, ONE, edited(TWO, 20), TWO, edited(THREE, 30))]
    rows = write_jsonl(tmp_path / "train.jsonl", train)
    held_out = write_jsonl(tmp_path / "val.jsonl", [{"content": THREE}])
    for name in ("a", "b"):
        dedup_corpus([rows], held_out=[held_out], output=tmp_path / name)
    for name in ("removals.jsonl", "certificate.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert len(documents_in(rows)) == 5


def test_a_list_that_leaves_held_out_text_is_found_out(tmp_path: Path) -> None:
    """What the certificate says is taken from the written list, not from the search."""
    found = dedup(tmp_path, [ONE, CRLF, THREE], [TWO])
    index = found.search.index
    assert documents_left(index, tmp_path / "out.jsonl").tolist() == [False, True, False, True]
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(Refusal) as refused:
        documents_left(index, tmp_path / "empty.jsonl")
    assert refused.value.id == "corpus.still-shared"


def test_overwrite_replaces_a_list_and_never_a_corpus(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    precious = write_jsonl(output, [{"content": ONE}]).read_bytes()
    with pytest.raises(Refusal) as refused:
        dedup(tmp_path, [ONE, TWO], [THREE], overwrite=True)
    assert refused.value.id == "files.foreign-content"
    assert output.read_bytes() == precious
    output.unlink()
    first = dedup(tmp_path, [ONE, TWO, TWO], [THREE])
    again = dedup(tmp_path, [ONE, TWO, ONE], [THREE], overwrite=True)
    assert first.removals.sha256 != again.removals.sha256
    assert [entry["hash"] for entry in entries(tmp_path)] == [document_hash(ONE).hex()]


@pytest.mark.parametrize(
    ("text", "is_replaced"),
    [
        ('{"certificate_content_sha256": "edited", "seed": 1}', True),
        ('{"type": "service_account"}', False),
        ("-----BEGIN CERTIFICATE-----", False),
    ],
)
def test_overwrite_replaces_only_what_was_a_certificate(
    tmp_path: Path, text: str, is_replaced: bool
) -> None:
    (tmp_path / "out.certificate.json").write_text(text)
    if is_replaced:
        assert dedup(tmp_path, [ONE, TWO], [THREE], overwrite=True).certificate is not None
        return
    with pytest.raises(Refusal) as refused:
        dedup(tmp_path, [ONE, TWO], [THREE], overwrite=True)
    assert refused.value.id == "files.foreign-content"
    assert (tmp_path / "out.certificate.json").read_text() == text


@pytest.mark.parametrize("name", ["out.jsonl", "out.certificate.json"])
def test_what_appeared_while_it_searched_is_not_lost(tmp_path: Path, name: str) -> None:
    def appear(progress: Progress) -> None:
        if progress.activity == "comparing":
            (tmp_path / name).write_text("theirs")

    with pytest.raises(Refusal) as refused:
        dedup(tmp_path, [ONE, TWO, TWO], [THREE], progress=appear)
    assert refused.value.id == "files.exists"
    assert (tmp_path / name).read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == [name]
