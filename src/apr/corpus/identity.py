"""What a set of documents is called: a hash of the hashes of its texts."""

import hashlib

import numpy as np
from numpy.typing import NDArray

DOCUMENT_HASH_BYTES = 16


def documents_sha256(document_hashes: NDArray[np.uint8]) -> str:
    """The identity of a set of documents: sha256 over its distinct document hashes, sorted.

    Neither the order of the documents nor the number of copies of one changes it.

    Shapes: [N, 16], one BLAKE2b-128 per row.
    """
    words = np.ascontiguousarray(document_hashes, np.uint8).view(">u8").astype(np.uint64)
    order = np.lexsort((words[:, 1], words[:, 0]))
    words = words[order]
    is_first = np.ones(len(words), np.bool_)
    is_first[1:] = (words[1:] != words[:-1]).any(axis=1)
    return hashlib.sha256(words[is_first].astype(">u8").tobytes()).hexdigest()


def first_of_equal(hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """For each row the first one that is equal to it, often itself.

    Shapes: [N, 16] to [N].
    """
    words = hashes.view(np.uint64)
    # Of equal hashes the first document comes first, because the sort is stable.
    order = np.lexsort((words[:, 1], words[:, 0]))
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = (words[order[1:]] != words[order[:-1]]).any(axis=1)
    firsts = order[is_new]
    result = np.empty(len(order), np.int64)
    result[order] = firsts[np.cumsum(is_new) - 1]
    return result
