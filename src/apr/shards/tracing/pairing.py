"""Which entries of two long lists are the same, counted as multisets, in memory of a few copies.

Lists hold one fixed-size key per document, so that a hundred million of them still sort in place;
no key is ever a Python object.
"""

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.void]
Places = NDArray[np.int64]


def pair_equal(keys_a: Keys, keys_b: Keys) -> tuple[Places, Places]:
    """Where equal keys stand in both lists, in the order of the first; each is used once.

    Of a key that is repeated, the first is paired with the first, the second with the second.
    """
    ranked_a, ranked_b = _with_rank(keys_a), _with_rank(keys_b)
    _, in_a, in_b = np.intersect1d(ranked_a, ranked_b, assume_unique=True, return_indices=True)
    order = np.argsort(in_a)
    return in_a[order].astype(np.int64), in_b[order].astype(np.int64)


def joined(left: Keys, right: Keys) -> Keys:
    """One key out of two."""
    width = left.dtype.itemsize + right.dtype.itemsize
    both = np.empty((len(left), width), np.uint8)
    both[:, : left.dtype.itemsize] = _bytes(left)
    both[:, left.dtype.itemsize :] = _bytes(right)
    return both.view(f"V{width}").ravel()


def all_but(num_entries: int, places: Places) -> Places:
    """The other places of a list."""
    is_other = np.ones(num_entries, np.bool_)
    is_other[places] = False
    return np.flatnonzero(is_other).astype(np.int64)


def _with_rank(keys: Keys) -> Keys:
    """Every key with the number of equal ones before it, which makes it unique."""
    order = np.argsort(keys, kind="stable")
    in_order = keys[order]
    begins = np.ones(len(keys), np.bool_)
    begins[1:] = in_order[1:] != in_order[:-1]
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=len(keys))
    ranks = np.empty(len(keys), np.dtype(">u8"))
    ranks[order] = np.arange(len(keys)) - np.repeat(starts, lengths)
    return joined(keys, ranks.view("V8"))


def _bytes(keys: Keys) -> NDArray[np.uint8]:
    return np.ascontiguousarray(keys).view(np.uint8).reshape(len(keys), keys.dtype.itemsize)
