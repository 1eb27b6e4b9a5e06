"""F21: training text in the validation set.

Whole groups are held out before anything else happens, and an exact copy of a held-out text is
taken out of the training part and counted, wherever it lies.
"""

from tests.unit.corpus.test_split import DOCUMENTS, split

from apr.corpus.documents import Document


def leaked(train: list[Document], held_out: list[Document]) -> int:
    assert train
    assert held_out
    held_out_texts = {document.text for document in held_out}
    return sum(document.text in held_out_texts for document in train)


def test_the_harmless_twin_loses_nothing() -> None:
    result, drops = split(DOCUMENTS)
    assert leaked(result.train, result.held_out) == 0
    assert drops.counts == {}


def test_one_exact_copy_in_another_package_is_taken_out() -> None:
    twin = split(DOCUMENTS)[0]
    copy = Document(twin.held_out[3].text, "vendored.py", twin.train[0].group)
    result, drops = split([copy, *DOCUMENTS])
    assert result.held_out_groups == twin.held_out_groups
    assert leaked([copy], twin.held_out) == 1
    assert leaked(result.train, result.held_out) == 0
    assert drops.counts == {"duplicate_of_held_out": 1}


def test_a_corpus_sampled_twice_before_the_split_does_not_leak() -> None:
    """The same files in a second repository: a split by single documents would leak half."""
    doubled = [
        *DOCUMENTS,
        *(Document(one.text, f"fork/{one.source}", f"fork-{one.group}") for one in DOCUMENTS),
    ]
    result, drops = split(doubled)
    assert leaked(result.train, result.held_out) == 0
    assert drops.counts["duplicate_of_held_out"] > 0


def test_files_of_one_package_stay_together() -> None:
    result, _ = split(DOCUMENTS)
    train = {document.group for document in result.train}
    held_out = {document.group for document in result.held_out}
    assert train
    assert held_out
    assert train.isdisjoint(held_out)
