"""Telling the owner of a version 1 file what it is; its payload cannot be read here.

A v1 payload is the memory image of one Rust type, so only the 32 bytes of its header mean
anything to another program.
"""

import struct

from apr.errors import DamagedFile

MAGIC = b"APRN"
HEADER_BYTES = 32

_FIELDS = struct.Struct("<4sBBHIIIBBB")
_MODEL_TYPES = {
    1: "linear regression",
    2: "logistic regression",
    3: "decision tree",
    4: "random forest",
    5: "gradient boosting",
    6: "k-means",
    7: "PCA",
    8: "naive Bayes",
    9: "k nearest neighbours",
    10: "support vector machine",
    16: "n-gram language model",
    17: "TF-IDF",
    18: "count vectorizer",
    32: "sequential network",
    33: "custom network",
    48: "recommender",
    64: "mixture of experts",
    255: "custom model",
}
_COMPRESSION = {0: "not compressed", 1: "zstd", 2: "zstd, level 19", 3: "LZ4"}


def refusal(head: bytes, *, where: str) -> DamagedFile:
    """The refusal of a file that starts with `APRN`, with what its header says."""
    return DamagedFile(
        "container.version-1",
        where,
        found=f"APRN, a version 1 file{_described(head)}",
        expected="an .apr file of version 2",
        fix="version 1 holds one Rust object; save the model again with a current Rust apr",
    )


def _described(head: bytes) -> str:
    if len(head) < HEADER_BYTES:
        return ", cut inside its header"
    _, major, minor, kind, metadata_bytes, packed, _, compression, flags, quality = (
        _FIELDS.unpack_from(head)
    )
    parts = [
        f"header {major}.{minor}",
        _MODEL_TYPES.get(kind, f"model type {kind}"),
        f"{metadata_bytes} bytes of metadata",
        f"{packed} bytes of payload",
        _COMPRESSION.get(compression, f"compression {compression}"),
        f"quality {quality}" if quality else "quality not rated",
    ]
    if flags & 1:
        parts.append("encrypted")
    return ": " + ", ".join(parts)
