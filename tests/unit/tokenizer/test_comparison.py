"""Two encoders side by side: the first text and token that differ, whatever the difference is."""

import numpy as np
import pytest
from tests.fast_encoders import WORDS, cut_by, wrong

from apr.errors import Refusal
from apr.progress import Progress
from apr.tokenizer.comparison import compare
from apr.tokenizer.encoders import FastEncoder

USED = cut_by(WORDS)
TEXTS = ["the", "", "b", "c b", "a c", "in b"]


class Answers:
    """A library that always gives these ids and offsets."""

    def __init__(self, ids: list[int], offsets: list[int]) -> None:
        self._ids = np.array(ids, np.uint32)
        self._offsets = np.array(offsets, np.uint64)

    def encode_batch_flat(self, _texts: list[str]) -> tuple[bytes, bytes]:
        return self._ids.tobytes(), self._offsets.tobytes()


def given(ids: list[int], offsets: list[int]) -> FastEncoder:
    return FastEncoder(Answers(ids, offsets), version="0", where="x")


def test_equal_encoders_have_no_difference() -> None:
    assert isinstance(USED.fast, FastEncoder)
    comparison = compare(USED.fast, USED.reference, TEXTS)
    assert (comparison.num_texts, comparison.difference) == (len(TEXTS), None)


def test_nothing_compared_is_counted_as_nothing() -> None:
    assert compare(USED.reference, USED.reference, []).num_texts == 0


def test_the_first_text_and_token_are_named() -> None:
    difference = compare(wrong(USED, pieces=("b", "q")), USED.reference, TEXTS).difference
    assert difference is not None
    ids = USED.definition.ids
    assert (difference.text_index, difference.token_index) == (2, 0)
    assert (difference.found, difference.expected) == (str(ids["q"]), str(ids["b"]))
    assert str(difference) == f"text 2, 'b': token 0 is {ids['q']}, not {ids['b']}"


def test_the_index_goes_on_over_batches() -> None:
    texts = ["the"] * 3000 + ["c b"]
    reports: list[Progress] = []
    candidate = wrong(USED, pieces=("b", "q"))
    comparison = compare(
        candidate, USED.reference, texts, num_expected=3001, progress=reports.append
    )
    assert comparison.difference is not None
    assert (comparison.difference.text_index, comparison.difference.token_index) == (3000, 2)
    assert [report.done for report in reports] == [1024, 2048, 3001]
    assert {report.total for report in reports} == {3001}


@pytest.mark.parametrize(
    ("ids", "offsets", "found", "expected"),
    [
        ([64, 65], [0, 2], "missing", "66"),
        ([64, 65, 66, 67], [0, 4], "67", "missing"),
        ([], [0, 0], "missing", "64"),
        ([64, 65, 66], [0, 3, 3], "3 offsets for 1 texts", "2"),
        ([64, 65, 66], [0], "1 offsets for 1 texts", "2"),
    ],
)
def test_every_shape_of_a_wrong_answer_is_a_difference(
    ids: list[int], offsets: list[int], found: str, expected: str
) -> None:
    assert USED.encode("abc").tolist() == [64, 65, 66]
    assert compare(given([64, 65, 66], [0, 3]), USED.reference, ["abc"]).difference is None
    difference = compare(given(ids, offsets), USED.reference, ["abc"]).difference
    assert difference is not None
    assert (difference.found, difference.expected) == (found, expected)


def test_ids_of_one_text_given_to_another_are_a_difference() -> None:
    """The flat ids are the same; only the offsets are not."""
    difference = compare(given([64, 65, 66], [0, 2, 3]), USED.reference, ["a", "bc"]).difference
    assert difference is not None
    assert (difference.text_index, difference.token_index) == (0, 1)


class Failing:
    """A library that fails on every batch."""

    def encode_batch_flat(self, _texts: list[str]) -> None:
        raise ValueError("no match limit left")


def test_a_candidate_that_fails_differs() -> None:
    candidate = FastEncoder(Failing(), version="0", where="x")
    difference = compare(candidate, USED.reference, ["abc"]).difference
    assert difference is not None
    assert difference.token_index is None
    assert "no match limit left" in str(difference)


def test_a_reference_that_fails_is_a_refusal() -> None:
    with pytest.raises(Refusal):
        compare(USED.reference, USED.reference, ["\ud800"])
