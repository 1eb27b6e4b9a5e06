"""A split is a function of content: more data, another order, another place move no document."""

import random
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.corpus_files import texts_in, write_jsonl

from apr.corpus.certificate import GroupKind
from apr.corpus.splitting.split import split_corpus
from apr.corpus.splitting.split_rule import SplitRule
from apr.errors import Refusal

ROWS = st.lists(
    st.tuples(st.text(st.characters(codec="utf-8"), min_size=1), st.sampled_from("abcdefgh")),
    min_size=8,
    max_size=40,
)
KINDS = st.sampled_from(("repo", "file"))


def sides(
    folder: Path, rows: list[tuple[str, str]], kind: GroupKind, seed: int
) -> tuple[set[str], set[str]] | None:
    """The texts of both sides; None when one side would be empty."""
    corpus = write_jsonl(
        folder / "in.jsonl", [{"content": text, "repo": repo} for text, repo in rows]
    )
    output = folder / "out"
    try:
        split_corpus([corpus], output=output, rule=SplitRule(kind, 0.4, seed), overwrite=True)
    except Refusal:
        return None
    return set(texts_in(output / "train")), set(texts_in(output / "held-out"))


@settings(max_examples=25)
@given(rows=ROWS, more=ROWS, kind=KINDS, seed=st.integers(0, 9), order=st.integers(0, 99))
def test_adding_and_reordering_documents_moves_none(
    rows: list[tuple[str, str]],
    more: list[tuple[str, str]],
    kind: GroupKind,
    seed: int,
    order: int,
) -> None:
    with TemporaryDirectory() as folder:
        before = sides(Path(folder), rows, kind, seed)
        shuffled = rows.copy()
        random.Random(order).shuffle(shuffled)
        assert sides(Path(folder), shuffled, kind, seed) == before
        after = sides(Path(folder), rows + more, kind, seed)
    if before is None or after is None:
        return
    train, held_out = before
    assert train
    assert held_out
    assert train & held_out == set()
    assert after[0] & after[1] == set()
    assert held_out <= after[1]
    # A training text may be dropped for a copy that came later; it never changes sides by itself.
    assert train & after[1] <= {text for text, _ in more}


@given(
    group=st.text(st.characters(codec="utf-8")),
    seed=st.integers(-(2**70), 2**70),
    fractions=st.tuples(st.floats(0.001, 0.999), st.floats(0.001, 0.999)),
)
def test_a_larger_share_only_adds_to_the_held_out_side(
    group: str, seed: int, fractions: tuple[float, float]
) -> None:
    small, large = sorted(fractions)
    if SplitRule("repo", small, seed).side_of(group) == "held-out":
        assert SplitRule("repo", large, seed).side_of(group) == "held-out"


def test_the_share_is_kept_over_many_groups() -> None:
    rule = SplitRule("repo", 0.1)
    held_out = sum(rule.side_of(f"repo {number}") == "held-out" for number in range(10_000))
    assert 850 < held_out < 1150


def test_the_draw_is_pinned() -> None:
    """These sides are part of every corpus that was split: they never change."""
    rule = SplitRule("repo", 0.5, 7)
    drawn = "".join("vt"[rule.side_of(f"g{number}") == "train"] for number in range(32))
    assert drawn == "vvvtttvtvvvvvttvtvtvtvtttvtvtttv"
