"""The fast encoder on real tokenizers: published ids, and the reference's on texts made to trap."""

from itertools import pairwise
from pathlib import Path

import pytest
from tests.parity.test_tokenizer_vectors import PAIRS, vectors_of
from tests.reference_data import reference

from apr.tokenizer.comparison import compare
from apr.tokenizer.encoders import FastEncoder
from apr.tokenizer.tokenizer import Tokenizer
from apr.tokenizer.trap_texts import code_point_texts, trap_texts


@pytest.mark.parametrize(("name", "vectors"), [pair[:2] for pair in PAIRS])
def test_the_fast_encoder_gives_the_published_and_the_references_ids(
    shared_data: Path, name: str, vectors: str
) -> None:
    used = Tokenizer.load(reference(shared_data, f"tokenizers/{name}/tokenizer.json"))
    assert isinstance(used.fast, FastEncoder)
    texts, expected = vectors_of(shared_data, vectors)
    ids, offsets = used.fast.encode_flat(texts)
    found = [ids[start:stop].tolist() for start, stop in pairwise(offsets.tolist())]
    assert found == expected
    made = [*trap_texts(used.definition), *code_point_texts()][::6]
    assert compare(used.fast, used.reference, made).difference is None
