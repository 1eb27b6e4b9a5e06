"""Decontamination on disk: held-out overlap, earlier lists, certificates, refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.corpus_files import program, texts_in, write_jsonl
from tests.evaluation_files import HUMAN_EVAL, SOLUTION, write_items
from tests.unit.corpus.deduplication.test_near_duplicates import edited

from apr.corpus.certificate import read_certificate
from apr.corpus.decontamination.decontaminate import Decontamination, decontaminate_corpus
from apr.corpus.deduplication.dedup import dedup_corpus
from apr.corpus.reading.documents import document_hash
from apr.corpus.removals import Removals
from apr.errors import Refusal
from apr.progress import Progress

ONE, TWO, THREE, FOUR = map(program, (1, 2, 3, 4))


def corpora(folder: Path, train: list[str], held_out: list[str]) -> dict[str, Any]:
    return {
        "train": [write_jsonl(folder / "train.jsonl", [{"content": text} for text in train])],
        "held_out": [write_jsonl(folder / "val.jsonl", [{"content": text} for text in held_out])],
    }


def run(folder: Path, train: list[str], held_out: list[str], **options: Any) -> Decontamination:
    return decontaminate_corpus(
        **corpora(folder, train, held_out), output=folder / "out.jsonl", **options
    )


def left(folder: Path, *lists: str) -> list[str]:
    of_lists = Removals.load([folder / name for name in lists or ["out.jsonl"]]).filter()
    texts = texts_in(folder / "train.jsonl")
    return [text for text in texts if of_lists.reason(document_hash(text)) is None]


def test_a_document_that_contains_a_held_out_one_is_removed(tmp_path: Path) -> None:
    found = run(tmp_path, [FOUR + ONE + THREE, FOUR, THREE], [TWO, ONE])
    assert left(tmp_path) == [FOUR, THREE]
    assert found.counts == {"overlaps_held_out": 1}
    assert found.worst[0]["found"] == f"{tmp_path / 'val.jsonl'}:2"
    assert found.worst[0]["share"] == 1.0


def test_a_document_that_is_part_of_a_held_out_one_is_removed(tmp_path: Path) -> None:
    run(tmp_path, [TWO, FOUR], [ONE + TWO + THREE])
    assert left(tmp_path) == [FOUR]


def test_a_copy_too_short_for_runs_is_removed(tmp_path: Path) -> None:
    found = run(tmp_path, ["x = 1\r\n", "y = 2\n"], ["x = 1\n"])
    assert left(tmp_path) == ["y = 2\n"]
    assert found.counts == {"duplicate_of_held_out": 1}


def test_what_is_left_is_measured(tmp_path: Path) -> None:
    partly = program(1, lines=16) + TWO
    found = run(tmp_path, [partly, THREE], [ONE])
    assert found.counts == {}
    exact, ngram = found.certificate.checks
    assert (exact.kind, ngram.kind) == ("exact", "ngram")
    assert ngram.kind == "ngram"
    assert ngram.largest_overlap_left is not None
    assert 0.1 < ngram.largest_overlap_left < 0.5
    assert ngram.largest_containment_left is None
    assert ngram.evaluation_sets == []


def test_the_share_and_the_length_are_the_users(tmp_path: Path) -> None:
    partly = program(1, lines=16) + TWO
    assert run(tmp_path, [partly, THREE], [ONE], containment=0.2).counts == {"overlaps_held_out": 1}
    changed = edited(ONE, 3)
    options = {"overwrite": True, "containment": 0.9}
    short = run(tmp_path, [changed + TWO, THREE], [ONE], num_words=8, **options)
    assert short.certificate.checks[1] != found_words(tmp_path, changed, options)


def found_words(folder: Path, changed: str, options: dict[str, Any]) -> Any:
    return run(folder, [changed + TWO, THREE], [ONE], num_words=40, **options).certificate.checks[1]


def test_earlier_lists_are_applied_first_and_their_certificate_is_carried_on(
    tmp_path: Path,
) -> None:
    train = [ONE, ONE, edited(TWO, 25), FOUR + SOLUTION, THREE]
    sides = corpora(tmp_path, train, [TWO])
    first = dedup_corpus(sides["train"], held_out=sides["held_out"], output=tmp_path / "a.jsonl")
    found = decontaminate_corpus(
        **sides,
        against=[write_items(tmp_path / "set.jsonl", HUMAN_EVAL)],
        removals=[tmp_path / "a.jsonl"],
        certificate=tmp_path / "a.certificate.json",
        output=tmp_path / "b.jsonl",
    )
    assert left(tmp_path, "a.jsonl", "b.jsonl") == [ONE, THREE]
    assert found.account.drops == {"duplicate": 1, "near_duplicate_of_held_out": 1}
    certificate, _ = read_certificate(tmp_path / "b.certificate.json")
    assert [check.kind for check in certificate.checks] == ["exact", "near", "ngram"]
    assert certificate.refines == first.certificate_sha256
    assert certificate.removals == Removals.load([tmp_path / "a.jsonl", tmp_path / "b.jsonl"]).lists
    assert certificate.train.num_documents == 2
    assert certificate.held_out == (first.certificate and first.certificate.held_out)


def test_an_earlier_list_of_another_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    foreign = {"hash": document_hash(FOUR).hex(), "reason": "duplicate"}
    write_jsonl(tmp_path / "foreign.jsonl", [foreign])
    lists = [tmp_path / "empty.jsonl", tmp_path / "foreign.jsonl"]
    with pytest.raises(Refusal) as refused:
        run(tmp_path, [ONE, THREE], [TWO], removals=lists)
    assert refused.value.id == "corpus.removals-unmatched"
    assert refused.value.where == str(tmp_path / "foreign.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    run(tmp_path, [ONE, THREE, FOUR], [TWO], removals=lists)


def test_a_certificate_of_other_documents_is_refused(tmp_path: Path) -> None:
    sides = corpora(tmp_path, [ONE, TWO], [THREE])
    dedup_corpus(sides["train"], held_out=sides["held_out"], output=tmp_path / "a.jsonl")
    for train, held_out in (([ONE, FOUR], [THREE]), ([ONE, TWO], [FOUR])):
        with pytest.raises(Refusal) as refused:
            run(tmp_path, train, held_out, certificate=tmp_path / "a.certificate.json")
        assert refused.value.id == "corpus.certificate-mismatch"
    assert not (tmp_path / "out.jsonl").exists()


def test_nothing_to_compare_with_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        decontaminate_corpus([tmp_path], output=tmp_path / "o.jsonl")
    assert (refused.value.id, refused.value.exit_code) == ("corpus.nothing-to-compare", 2)


def test_an_evaluation_set_without_words_is_refused(tmp_path: Path) -> None:
    sides = corpora(tmp_path, [ONE], [TWO])
    for text in ("", '{"prompt": "a b c"}\n'):
        (tmp_path / "set.jsonl").write_text(text)
        with pytest.raises(Refusal) as refused:
            decontaminate_corpus(
                **sides, against=[tmp_path / "set.jsonl"], output=tmp_path / "o.jsonl"
            )
        assert refused.value.id == "corpus.evaluation-empty"


def test_a_corpus_that_is_all_contaminated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        run(tmp_path, [ONE, TWO], [TWO, ONE])
    assert refused.value.id == "corpus.nothing-left"
    assert {path.name for path in tmp_path.iterdir()} == {"train.jsonl", "val.jsonl"}


def test_what_took_everything_away_is_named(tmp_path: Path) -> None:
    against = [write_items(tmp_path / "set.jsonl", HUMAN_EVAL)]
    with pytest.raises(Refusal) as refused:
        run(tmp_path, [ONE + SOLUTION], [TWO], against=against)
    assert refused.value.found == "all 1 would be removed: 1 contaminated"
    assert refused.value.fix == (
        "check that the evaluation sets (--against) are not the training documents"
    )
    with pytest.raises(Refusal) as refused:
        run(tmp_path, [ONE + SOLUTION, TWO], [TWO], against=against)
    assert "the evaluation sets (--against) and the held-out documents" in refused.value.fix
    (tmp_path / "list.jsonl").write_text(
        json.dumps({"hash": document_hash(THREE).hex(), "reason": "pii"}) + "\n"
    )
    with pytest.raises(Refusal) as refused:
        run(tmp_path, [THREE, TWO], [TWO], removals=[tmp_path / "list.jsonl"])
    assert refused.value.found == (
        "all 2 would be removed: 1 duplicate_of_held_out, 1 by the lists of --remove"
    )
    assert "evaluation" not in refused.value.fix


def test_forbidden_text_that_appears_after_the_search_is_found_again(tmp_path: Path) -> None:
    """The second look is one: a document that changed under the search does not slip through."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.py").write_text(ONE)
    (tmp_path / "in" / "b.py").write_text("#" * len(TWO))

    def change(progress: Progress) -> None:
        if progress.activity == "measuring what is left":
            (tmp_path / "in" / "b.py").write_text(TWO)

    val = write_jsonl(tmp_path / "val.jsonl", [{"content": TWO}])
    with pytest.raises(Refusal) as refused:
        decontaminate_corpus(
            [tmp_path / "in"], held_out=[val], output=tmp_path / "o.jsonl", progress=change
        )
    assert refused.value.id == "corpus.still-shared"
    assert not (tmp_path / "o.jsonl").exists()


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    sides = corpora(tmp_path, [FOUR + ONE, TWO, ONE, THREE + SOLUTION], [ONE])
    items = write_items(tmp_path / "set.jsonl", HUMAN_EVAL)
    for name in ("a", "b"):
        decontaminate_corpus(**sides, against=[items], output=tmp_path / name)
    written = (tmp_path / "a" / "removals.jsonl").read_text()
    assert [json.loads(line)["reason"] for line in written.splitlines()] == [
        "overlaps_held_out",
        "duplicate_of_held_out",
        "contaminated",
    ]
    for name in ("removals.jsonl", "certificate.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
