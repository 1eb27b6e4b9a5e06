"""Equal keys of two lists, paired as multisets, against a count of Python objects."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from apr.shards.tracing.pairing import Keys, all_but, joined, pair_equal

letters = st.lists(st.sampled_from([b"\0\0", b"a\0", b"\0a", b"ab", b"zz"]), max_size=12)


def keys(entries: list[bytes]) -> Keys:
    return np.frombuffer(b"".join(entries), "V2") if entries else np.empty(0, "V2")


@given(a=letters, b=letters)
def test_what_is_in_both_is_paired_and_nothing_else(a: list[bytes], b: list[bytes]) -> None:
    in_a, in_b = pair_equal(keys(a), keys(b))
    assert Counter(a[at] for at in in_a) == Counter(a) & Counter(b)
    assert [a[at] for at in in_a] == [b[at] for at in in_b]
    assert len(set(in_a.tolist())) == len(in_a)
    assert len(set(in_b.tolist())) == len(in_b)
    assert in_a.tolist() == sorted(in_a)


@given(a=letters)
def test_a_list_is_paired_with_itself_place_by_place(a: list[bytes]) -> None:
    in_a, in_b = pair_equal(keys(a), keys(a))
    assert in_a.tolist() == in_b.tolist() == list(range(len(a)))


@given(a=letters, b=letters)
def test_what_is_left_is_the_rest(a: list[bytes], b: list[bytes]) -> None:
    in_a, _ = pair_equal(keys(a), keys(b))
    left = all_but(len(a), in_a)
    assert sorted([*in_a.tolist(), *left.tolist()]) == list(range(len(a)))
    assert Counter(a[at] for at in left) == Counter(a) - Counter(b)


def test_two_keys_become_one() -> None:
    both = joined(keys([b"ab", b"\0a"]), keys([b"cd", b"b\0"]))
    assert both.tobytes() == b"abcd\0ab\0"
    assert both.dtype.itemsize == 4
