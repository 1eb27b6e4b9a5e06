"""MinHash sketches in bands: similar texts are likely to agree in a whole band.

A sketch holds one minimum per permutation, and two sketches agree at a place with the probability
of the Jaccard similarity J of their sets. Cut into b bands of r places, they agree in some band
with probability 1 - (1 - J^r)^b: a steep curve, so that only pairs worth comparing are compared.

Source: Broder 1997; Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apr.corpus.similarity.shingles import Shingles
from apr.corpus.similarity.tokens import mix
from apr.errors import FeatureMissing

_MOST_PERMUTATIONS = 128
_WANTED_PROBABILITY = 0.99
_SEED = 42


@dataclass(frozen=True)
class Bands:
    """How sketches are cut."""

    num_bands: int
    rows_per_band: int

    @classmethod
    def for_jaccard(cls, jaccard: float) -> "Bands":
        """The longest bands that still compare 99 of 100 pairs which are just similar enough."""
        choices = [cls(_MOST_PERMUTATIONS // rows, rows) for rows in range(1, 129)]
        good = [bands for bands in choices if bands.probability(jaccard) >= _WANTED_PROBABILITY]
        return good[-1] if good else choices[0]

    @property
    def num_permutations(self) -> int:
        """Places of a sketch."""
        return self.num_bands * self.rows_per_band

    def probability(self, jaccard: float) -> float:
        """That two texts of this similarity are compared."""
        return 1 - (1 - jaccard**self.rows_per_band) ** self.num_bands

    def keys(self, shingles: Shingles) -> NDArray[np.uint32]:
        """For each text, one key per band; equal keys make two texts worth comparing.

        Shapes: [texts, bands].

        Refuses: corpus.no-rensa.
        """
        rensa = _rensa()
        offsets = np.concatenate([np.zeros(1, np.uint64), shingles.ends.astype(np.uint64)])
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            shingles.hashes, offsets, self.num_permutations, _SEED
        )
        rows = np.array(matrix.to_rows(), np.uint64)
        rows = rows.reshape(len(shingles.ends), self.num_bands, self.rows_per_band)
        total = np.zeros(rows.shape[:2], np.uint64)
        for place in range(self.rows_per_band):
            total = mix(total + rows[:, :, place])
        return (total >> np.uint64(32)).astype(np.uint32)


def _rensa() -> Any:
    try:
        import rensa  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as err:
        raise FeatureMissing(
            "corpus.no-rensa",
            "near-duplicates",
            found="the package rensa is not installed",
            expected="the package that computes MinHash sketches",
            fix="pip install 'apr[dedup]', or look for exact copies only: --no-near",
        ) from err
    return rensa
