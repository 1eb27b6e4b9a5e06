"""The measure of a proof: no value is so large or so odd that a difference hides behind it."""

from dataclasses import replace

import numpy as np
import pytest
from tests.source_models import LLAMA, source, with_array

from apr.errors import Refusal
from apr.jobs.prove_source import prove_source
from apr.model.proof import relative_error


def vectors(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        (vectors([3, 4]), vectors([3, 4]), 0.0),
        (vectors([3, 4.5]), vectors([3, 4]), 0.1),
        # The worst position counts, not their mean.
        (vectors([3, 4], [0, 2]), vectors([3, 4], [0, 1]), 1.0),
        (vectors([0, 0]), vectors([0, 0]), 0.0),
        # Squares that fp32 does not hold.
        (vectors([1e19, 0]), vectors([2e19, 0]), 0.5),
        (vectors([1e-30, 0]), vectors([2e-30, 0]), 0.5),
    ],
)
def test_relative_to_the_length(found: np.ndarray, expected: np.ndarray, error: float) -> None:
    assert relative_error(found, expected) == pytest.approx(error, rel=1e-6)


def test_what_cannot_be_compared_is_no_agreement() -> None:
    sound = vectors([1, 2], [3, 4])
    assert relative_error(sound[:1], sound) == float("inf")
    for bad in (np.nan, np.inf):
        for where in range(2):
            spoilt = sound.copy()
            spoilt[where, 0] = bad
            with np.errstate(invalid="ignore"):
                for pair in ((spoilt, sound), (sound, spoilt), (spoilt, spoilt)):
                    assert not relative_error(*pair) <= 1e-4
    assert relative_error(vectors([1e-3, 0]), vectors([0, 0])) > 1e100


def test_a_value_beyond_fp32_is_a_difference_without_a_warning() -> None:
    """Warnings are errors here: numpy's would reach the user's terminal."""
    good = source(LLAMA)
    name = "model.layers.1.self_attn.q_proj.weight"
    bad = with_array(name, lambda rows: rows * np.float32(1e38))(good)
    for spoilt, tensors in ((good, bad.tensors), (replace(good, stored=bad.tensors), good.tensors)):
        with pytest.raises(Refusal) as refused:
            prove_source(spoilt, good.architecture, tensors, ask_transformers=False)
        assert (refused.value.id, refused.value.where) == ("proof.differs", "layer 1, queries")
