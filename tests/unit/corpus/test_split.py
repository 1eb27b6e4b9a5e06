"""A split by groups: a function of content and names, not of order."""

import random

import pytest

from apr.corpus.documents import Document
from apr.corpus.drops import Drops
from apr.corpus.split import Split, split_documents
from apr.errors import Refusal

DOCUMENTS = [
    Document(f"text {number} " * (number % 9 + 1), f"g{number % 40}/{number}.py", f"g{number % 40}")
    for number in range(400)
]


def split(
    documents: list[Document],
    *,
    fraction: float = 0.1,
    min_documents: int = 1,
    min_bytes: int = 1,
    seed: int = 0,
) -> tuple[Split, Drops]:
    drops = Drops()
    result = split_documents(
        documents,
        fraction=fraction,
        min_documents=min_documents,
        min_bytes=min_bytes,
        seed=seed,
        drops=drops,
    )
    return result, drops


def size_bytes(documents: list[Document]) -> int:
    return sum(len(document.text.encode()) for document in documents)


def test_every_document_is_on_one_side() -> None:
    result, drops = split(DOCUMENTS)
    assert len(result.train) + len(result.held_out) == len(DOCUMENTS)
    assert drops.counts == {}
    train_groups = {document.group for document in result.train}
    assert train_groups.isdisjoint(result.held_out_groups)
    assert {document.group for document in result.held_out} == set(result.held_out_groups)


@pytest.mark.parametrize("fraction", [0.03, 0.1, 0.3])
def test_the_held_out_part_is_as_large_as_asked_for(fraction: float) -> None:
    result, _ = split(DOCUMENTS, fraction=fraction)
    share = size_bytes(result.held_out) / size_bytes(DOCUMENTS)
    assert fraction <= share < fraction + 0.1


def test_both_minimums_are_reached() -> None:
    assert len(split(DOCUMENTS, fraction=0, min_documents=100)[0].held_out) >= 100
    held_out = split(DOCUMENTS, fraction=0, min_bytes=5_000)[0].held_out
    assert size_bytes(held_out) >= 5_000


def test_the_order_of_documents_decides_nothing() -> None:
    shuffled = DOCUMENTS.copy()
    random.Random(1).shuffle(shuffled)
    assert split(shuffled)[0].held_out_groups == split(DOCUMENTS)[0].held_out_groups


def test_documents_keep_their_order() -> None:
    result, _ = split(DOCUMENTS)
    assert result.train == [document for document in DOCUMENTS if document in result.train]


def test_the_seed_decides() -> None:
    assert split(DOCUMENTS, seed=1)[0].held_out_groups != split(DOCUMENTS)[0].held_out_groups


def test_a_large_group_stays_in_training() -> None:
    giant = [Document("x" * 30_000, "giant/1.py", "giant")]
    for seed in range(20):
        assert "giant" not in split(DOCUMENTS + giant, seed=seed)[0].held_out_groups


def test_a_training_copy_of_held_out_text_is_left_out() -> None:
    held_out = split(DOCUMENTS)[0].held_out
    train_group = split(DOCUMENTS)[0].train[0].group
    copies = [Document(held_out[0].text, "copy.py", train_group)]
    result, drops = split(DOCUMENTS + copies)
    assert drops.counts == {"duplicate_of_held_out": 1}
    assert drops.examples == {"duplicate_of_held_out": ["copy.py"]}
    held_out_texts = {document.text for document in result.held_out}
    assert held_out_texts
    assert all(document.text not in held_out_texts for document in result.train)


def test_twins_inside_one_side_stay() -> None:
    train = split(DOCUMENTS)[0].train
    result, drops = split([*DOCUMENTS, Document(train[0].text, "twin.py", train[0].group)])
    assert drops.counts == {}
    assert len(result.train) == len(train) + 1


@pytest.mark.parametrize(
    "documents",
    [
        [],
        [Document("x", "a", "a")],
        [Document("x", "a", "a"), Document("y", "b", "b")],
        [Document(f"{number}", "a", "one") for number in range(100)],
    ],
)
def test_what_cannot_be_split_is_refused(documents: list[Document]) -> None:
    with pytest.raises(Refusal) as refused:
        split(documents)
    assert refused.value.id == "corpus.split-impossible"


def test_minimums_that_leave_too_little_are_refused() -> None:
    for options in ({"min_documents": 401}, {"min_documents": 300}, {"fraction": 0.9}):
        with pytest.raises(Refusal) as refused:
            split(DOCUMENTS, **options)
        assert refused.value.id == "corpus.split-impossible"


def test_training_text_that_is_all_held_out_is_refused() -> None:
    same = [Document("same", f"{number}", f"g{number}") for number in range(100)]
    with pytest.raises(Refusal) as refused:
        split(same)
    assert refused.value.found == "no text that is not held out as well"
