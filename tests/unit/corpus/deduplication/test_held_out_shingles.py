"""No training text that resembles a held-out one is missed, whatever else resembles it too."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.corpus_files import program
from tests.unit.corpus.deduplication.test_near_duplicates import edited

from apr.corpus.deduplication.held_out_shingles import HeldOutShingles
from apr.corpus.deduplication.near_duplicates import Match
from apr.corpus.similarity.postings import Postings
from apr.corpus.similarity.shingles import Shingles, jaccard, shingle

HASHES = st.lists(st.integers(0, 40), min_size=1, max_size=30)


def as_shingles(sets: list[list[int]]) -> Shingles:
    # Spread over all 64 bits, as hashes are: the table of the index looks at the first ones.
    flat = np.array([value * 0x9E3779B97F4A7C15 % (1 << 64) for each in sets for value in each])
    return Shingles(flat.astype(np.uint64), np.cumsum([len(each) for each in sets]))


def by_hand(held_out: Shingles, text: Shingles, at: int) -> list[float]:
    one = text.set_of(at)
    return [jaccard(one, held_out.set_of(each)) for each in range(len(held_out.ends))]


@given(
    st.lists(HASHES, min_size=1, max_size=8),
    st.lists(HASHES, min_size=1, max_size=8),
    st.sampled_from([0.3, 0.5, 0.8, 1.0]),
)
def test_it_is_every_pair_compared_by_hand(
    held_out_sets: list[list[int]], texts: list[list[int]], threshold: float
) -> None:
    held_out, train = as_shingles(held_out_sets), as_shingles(texts)
    sets = [held_out.set_of(at) for at in range(len(held_out_sets))]
    found = dict(HeldOutShingles(sets, jaccard=threshold).matches(train))
    for at in range(len(texts)):
        similarities = by_hand(held_out, train, at)
        if max(similarities) >= threshold:
            assert at in found
        if at in found:
            best = int(np.argmax(similarities))
            assert found[at] == Match(best, similarities[best])


def test_a_part_that_is_just_large_enough_is_compared() -> None:
    """Eight of ten shingles, and nothing else on the held-out side."""
    train = as_shingles([list(range(10)), list(range(11))])
    held_out = as_shingles([list(range(8))])
    found = dict(HeldOutShingles([held_out.set_of(0)], jaccard=0.8).matches(train))
    assert found == {0: Match(0, 0.8)}


def test_a_crowd_on_the_held_out_side_hides_nothing() -> None:
    """Three hundred held-out files of one generator, and a copy of the last with one edit."""
    common = program(5, lines=30)
    crowd = [common + program(100 + at, lines=30) for at in range(300)]
    sets = [shingle([text]).set_of(0) for text in crowd]
    train = shingle([edited(crowd[-1], 30), program(7), common])
    found = dict(HeldOutShingles(sets, jaccard=0.8).matches(train))
    assert found[0].document_index == 299
    assert found[0].jaccard >= 0.8
    assert 1 not in found
    assert found[2].jaccard < 0.8


@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
def test_postings_are_counted_whatever_is_counted_at_once(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("apr.corpus.similarity.postings._MOST_POSTINGS_AT_ONCE", at_once)
    rng = np.random.default_rng(3)
    pool = rng.integers(0, 1 << 64, 60, dtype=np.uint64)
    sets = [rng.choice(pool, size) for size in (0, 1, 20, 50, 200)]
    hashes = rng.choice(np.concatenate([pool, pool[:5] + np.uint64(1)]), 90)
    expected = [len(np.intersect1d(each, hashes)) for each in sets]
    postings = Postings(sets)
    assert postings.count(hashes).tolist() == expected
    assert postings.sizes.tolist() == [len(np.unique(each)) for each in sets]
    assert Postings([]).count(hashes).tolist() == []
