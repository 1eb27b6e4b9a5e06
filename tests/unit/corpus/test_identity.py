"""A set of documents has one name, whatever its order."""

import hashlib

import numpy as np

from apr.corpus.identity import documents_sha256

HASHES = np.random.default_rng(0).integers(0, 256, (500, 16), dtype=np.uint8)


def test_the_name_is_the_hash_of_the_sorted_hashes() -> None:
    expected = hashlib.sha256(b"".join(sorted(bytes(row) for row in HASHES))).hexdigest()
    assert documents_sha256(HASHES) == expected


def test_order_and_copies_do_not_matter_and_one_document_does() -> None:
    assert documents_sha256(HASHES[::-1]) == documents_sha256(HASHES)
    assert documents_sha256(np.concatenate([HASHES, HASHES[:9]])) == documents_sha256(HASHES)
    assert documents_sha256(HASHES[1:]) != documents_sha256(HASHES)


def test_no_documents_have_a_name_too() -> None:
    assert documents_sha256(np.empty((0, 16), np.uint8)) == hashlib.sha256().hexdigest()
