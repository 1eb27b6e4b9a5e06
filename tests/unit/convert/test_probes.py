"""Probes: fixed, of every special id, and long enough."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apr.convert.probes import NUM_TOKENS, make_probes

# A proof names its probes by this hash: another one means that older proofs tell of other ids.
_SHA256 = "ce9566bb18b5066be971f1b508e7999e33092fbca3120b30cc649e6ad0232e20"


def test_they_are_the_same_for_ever() -> None:
    probes = make_probes(vocab_size=512, max_position_embeddings=128, special_ids=[1, 2])
    assert probes.ids_BT.shape == (4, 128)
    assert probes.sha256 == _SHA256


@pytest.mark.parametrize(
    ("change", "value"),
    [("vocab_size", 513), ("max_position_embeddings", 64), ("special_ids", [1, 3])],
)
def test_the_hash_is_of_what_decides_them(change: str, value: object) -> None:
    settings = {"vocab_size": 512, "max_position_embeddings": 128, "special_ids": [1, 2]}
    other = make_probes(**{**settings, change: value})  # type: ignore[arg-type]
    assert other.sha256 != _SHA256
    assert make_probes(**settings).sha256 == _SHA256  # type: ignore[arg-type]


@given(
    st.integers(1, 200_000),
    st.integers(1, 5000),
    st.sets(st.integers(-5, 250_000), max_size=200),
)
def test_they_hold_what_they_promise(vocab: int, positions: int, special: set[int]) -> None:
    probes = make_probes(vocab_size=vocab, max_position_embeddings=positions, special_ids=special)
    ids = probes.ids_BT
    assert ids.size >= NUM_TOKENS
    assert ids.shape[1] <= positions
    assert ids.min() >= 0
    assert ids.max() < vocab
    promised = {0, vocab - 1, *(each for each in special if 0 <= each < vocab)}
    assert promised <= set(ids.ravel().tolist())
    assert len(np.unique(probes.shown)) == len(probes.shown) == 32
    assert probes.shown[0] == 0
    assert probes.shown[-1] == ids.size - 1


def test_more_special_ids_than_fit_leave_room_for_others() -> None:
    probes = make_probes(vocab_size=10_000, max_position_embeddings=512, special_ids=range(1000))
    found = set(probes.ids_BT.ravel().tolist())
    assert set(range(256)) <= found
    assert any(each >= 1000 for each in found)


def test_ids_vary() -> None:
    """A stream that repeated itself, or stayed in one corner, would show few of the rows."""
    probes = make_probes(vocab_size=50_000, max_position_embeddings=2048, special_ids=[])
    ids = probes.ids_BT.ravel()
    assert len(np.unique(ids)) > 500
    assert 20_000 < ids.mean() < 30_000
