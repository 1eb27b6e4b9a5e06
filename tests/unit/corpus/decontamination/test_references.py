"""How much of a reference a document holds: against sets of words, written down one by one."""

import re

import pytest
from tests.corpus_files import program

from apr.corpus.decontamination.references import Match, Reference, ReferenceIndex, make_reference
from apr.corpus.similarity.grams import Words

WORD = re.compile(r"\w+")


def runs(text: str, num_words: int) -> set[tuple[str, ...]]:
    words = WORD.findall(text.lower())
    return {tuple(words[at : at + num_words]) for at in range(len(words) - num_words + 1)}


def best(
    text: str,
    *references: str,
    num_words: int = 13,
    threshold: float = 0.5,
    both_ways: bool = False,
) -> Match | None:
    made = [
        make_reference(f"r{at}", reference, num_words=num_words)
        for at, reference in enumerate(references)
    ]
    index = ReferenceIndex(
        made, num_words=num_words, threshold=threshold, both_ways=both_ways, min_runs=8
    )
    (grams,) = Words([text]).grams(num_words=num_words)
    return index.best(text, grams)


def share(match: Match | None) -> float:
    assert match is not None
    return match.share


@pytest.mark.parametrize("num_words", [8, 13, 20])
@pytest.mark.parametrize("num_lines", [10, 20, 30, 40])
def test_the_share_of_a_reference_is_that_of_its_runs(num_words: int, num_lines: int) -> None:
    reference, text = program(1), program(2) + program(1, lines=num_lines) + program(3)
    wanted = runs(reference, num_words)
    expected = len(wanted & runs(text, num_words)) / len(wanted)
    assert 0.1 < expected <= 1
    found = best(text, program(4), reference, program(5), num_words=num_words, threshold=0.0)
    assert share(found) == pytest.approx(expected)
    assert found is not None
    assert found.reference.name == "r1"
    assert not found.is_renamed


def test_a_document_that_is_a_part_of_a_reference_is_found_both_ways_only() -> None:
    whole = program(1) + program(2) + program(3)
    assert share(best(program(2), whole)) < 0.5
    assert share(best(program(2), whole, both_ways=True)) == 1.0


def test_a_few_words_are_no_part_of_anything() -> None:
    few = " ".join(WORD.findall(program(1))[:16])
    assert share(best(few, program(1), both_ways=True)) < 0.1


def test_nothing_in_common_is_nothing() -> None:
    assert best(program(1), program(2)) is None
    assert best("", program(2)) is None
    assert best("a b", program(2)) is None
    assert best(program(1)) is None


NAMED = "".join(
    f"    if total > {at} and item not in seen_{at % 3}:\n        total = total + item * {at}\n"
    for at in range(12)
)


@pytest.mark.parametrize(("name", "other"), [("total", "acc"), ("item", "x9"), ("seen_1", "done")])
def test_one_changed_name_is_undone(name: str, other: str) -> None:
    text = program(1) + re.sub(rf"\b{name}\b", other, NAMED) + program(2)
    found = best(text, NAMED, threshold=1.0)
    assert share(found) == 1.0
    assert found is not None
    assert found.is_renamed


def test_two_changed_names_are_not_undone() -> None:
    text = NAMED.replace("total", "acc").replace("item", "x9")
    assert best(text, NAMED) is None


def test_the_same_structure_with_other_words_is_no_copy() -> None:
    """Equal but for every name: a loop is a loop."""
    other = NAMED.replace("total", "a").replace("item", "b").replace("seen", "c")
    assert best(program(1) + other, NAMED) is None


def test_neighbours_and_layout_change_nothing() -> None:
    texts = [program(1), "x", "", NAMED, program(2)]
    together = list(Words(texts).grams(num_words=13))
    for text, grams in zip(texts, together, strict=True):
        (alone,) = Words([text.replace("\n", " \r\n\t").upper()]).grams(num_words=13)
        assert alone.verbatim.tolist() == grams.verbatim.tolist()
        assert alone.nameless.tolist() == grams.nameless.tolist()


def test_a_run_without_names_keeps_what_is_fixed() -> None:
    def nameless(text: str) -> list[int]:
        (grams,) = Words([text]).grams(num_words=8)
        return grams.nameless.tolist()

    text = "for a in b: a = a + 1; b = 2 if a else c"
    assert nameless(text) == nameless(text.replace("a", "zz"))
    assert nameless(text) != nameless(text.replace("for", "while"))
    assert nameless(text) != nameless(text.replace("2", "3"))
    assert nameless(text) != nameless(text.replace("c", "b"))


def test_a_reference_knows_its_text() -> None:
    made = make_reference("n", "a b c", num_words=8)
    assert isinstance(made, Reference)
    assert (made.name, made.text, len(made.grams.verbatim)) == ("n", "a b c", 1)
