"""Pieces to quantise: random, and the shapes that break quantisers."""

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SUB_BLOCK = 32


def normal(num_elements: int, *, seed: int = 0, deviation: float = 1.0) -> Floats:
    """Normally distributed values, as weights are."""
    values = np.random.default_rng(seed).standard_normal(num_elements)
    return (values * deviation).astype(np.float32)


def sub_block(seed: int, spread: float, offset: float, outlier: float, num_zeros: int) -> Floats:
    """32 values around an offset, one of them elsewhere, some of them zero."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(SUB_BLOCK) * spread + offset
    values[rng.integers(SUB_BLOCK)] += outlier
    values[rng.permutation(SUB_BLOCK)[:num_zeros]] = 0
    return values.astype(np.float32)


def magnitudes(largest: float) -> st.SearchStrategy[float]:
    """Nothing, something, or something of any order of magnitude."""
    return st.just(0.0) | st.floats(0, 2) | st.builds(lambda e: 2.0**e, st.floats(-149, largest))


def signed(largest: float) -> st.SearchStrategy[float]:
    return st.builds(lambda sign, size: sign * size, st.sampled_from([-1, 1]), magnitudes(largest))


def pieces(num_sub_blocks: int, *, largest_exponent: float) -> st.SearchStrategy[Floats]:
    """Flat pieces whose sub-blocks have nothing in common."""
    return st.lists(
        st.builds(
            sub_block,
            st.integers(0, 2**32 - 1),
            magnitudes(largest_exponent),
            signed(largest_exponent),
            signed(largest_exponent),
            st.sampled_from([0, 0, 1, 31, 32]),
        ),
        min_size=num_sub_blocks,
        max_size=num_sub_blocks,
    ).map(np.concatenate)


def any_values(num_elements: int, largest: float) -> st.SearchStrategy[Floats]:
    """Whatever floats hypothesis thinks of, subnormal ones included."""
    return st.lists(
        st.floats(-largest, largest, width=32), min_size=num_elements, max_size=num_elements
    ).map(lambda values: np.array(values, np.float32))
