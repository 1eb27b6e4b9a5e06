"""Which document resembles which: against all pairs, compared by hand."""

import tempfile

import numpy as np
from tests.corpus_files import program

from apr.corpus.deduplication.near_duplicates import Buckets, Match, NearDuplicates
from apr.corpus.similarity.shingles import jaccard, shingle
from apr.corpus.similarity.sketches import Bands


def edited(text: str, every: int) -> str:
    """One line of `every` rewritten."""
    lines = text.splitlines()
    lines[::every] = [
        f"    rewritten_{at} = {line.strip()[:8]!r}" for at, line in enumerate(lines[::every])
    ]
    return "\n".join(lines) + "\n"


def search(
    texts: list[str], *, threshold: float = 0.8, **limits: int
) -> tuple[list[Match | None], NearDuplicates]:
    keys = Bands.for_jaccard(threshold).keys(shingle(texts))
    with tempfile.TemporaryFile() as spill:
        near = NearDuplicates(
            Buckets(keys, np.arange(len(texts))),
            jaccard=threshold,
            spill=spill,
            **limits,
        )
        found = [
            near.match(at, shingle([text]).set_of(0)) if near.may_match(at) else None
            for at, text in enumerate(texts)
        ]
    return found, near


def similarity(one: str, other: str) -> float:
    sets = shingle([one, other])
    return jaccard(sets.set_of(0), sets.set_of(1))


FAMILIES = [
    version
    for number in range(40)
    for version in (
        program(number),
        edited(program(number), 20),
        edited(program(number), 4),
        program(number, lines=38),
        program(number, lines=12),
    )
]


def test_every_document_that_stays_differs_from_all_that_stay() -> None:
    found, near = search(FAMILIES)
    kept = [at for at, match in enumerate(found) if match is None]
    removed = {at: match for at, match in enumerate(found) if match}
    assert len(removed) >= 80
    assert len(kept) >= 80
    for at, match in removed.items():
        assert match.document_index in kept
        assert match.document_index < at
        assert match.jaccard == similarity(FAMILIES[at], FAMILIES[match.document_index])
        assert match.jaccard >= 0.8
    for place, one in enumerate(kept):
        for other in kept[:place]:
            assert similarity(FAMILIES[one], FAMILIES[other]) < 0.8
    assert near.num_pairs_compared >= len(removed)
    assert near.num_limited == 0


def test_a_chain_does_not_remove_what_differs_from_the_first() -> None:
    """Each resembles the one before it, and the last resembles the first no more."""
    chain = [program(7, lines=count) for count in (40, 36, 32, 28, 24, 20)]
    assert similarity(chain[0], chain[-1]) < 0.8 < similarity(chain[0], chain[1])
    found, _ = search(chain)
    for at, match in enumerate(found):
        if match:
            assert similarity(chain[at], chain[match.document_index]) >= 0.8
    assert found[1] is not None
    assert None in found[1:]


def test_a_crowd_is_compared_within_limits_and_that_is_said() -> None:
    """Forty files of one generator, too different to be removed: no quadratic work."""
    crowd = [program(5, lines=30) + program(100 + at, lines=10) for at in range(40)]
    assert 0.5 < similarity(crowd[0], crowd[1]) < 0.8
    _, free = search(crowd)
    assert free.num_limited == 0
    _, limited = search(crowd, most_comparisons=3, most_in_bucket=5)
    assert limited.num_limited > 20
    assert limited.num_pairs_compared <= 3 * len(crowd) < free.num_pairs_compared
