"""Two directories of shards compared by what their manifests and indexes say of their documents.

A document is its content, so a row that was moved or renamed is still the same document. Contents
are paired first; what is left is paired by its place, and a place with another content has
changed. What remains is on one side only, and the other side's record of its rows may say why.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from apr.files import sha256_bytes
from apr.progress import Report, silent
from apr.shards.manifest import Manifest
from apr.shards.provenance import document_places
from apr.shards.reader import ShardReader
from apr.shards.tracing.origins import Origins, read_origins
from apr.shards.tracing.pairing import Keys, Places, all_but, joined, pair_equal

_BY_PLACE = ("num_moved", "num_changed")


@dataclass(frozen=True)
class Example:
    """One document that differs, by its number and its place on either side."""

    kind: str
    document_a: int | None
    document_b: int | None
    hash_a: str | None
    hash_b: str | None
    place_a: str | None = None
    place_b: str | None = None
    why: str | None = None


@dataclass(frozen=True)
class Difference:
    """What two directories have in common, and what not."""

    a: Path
    b: Path
    manifest_sha256: tuple[str, str]
    fields: dict[str, tuple[Any, Any]]
    """Fields of the manifests that differ, with the value of either side."""
    num_same: int
    """Contents in both, and at the same place as far as places are known."""
    num_moved: int | None
    """Contents in both, at another place; None where a side does not know its places."""
    num_changed: int | None
    """Places in both, with another content; None likewise."""
    num_only_in_a: int
    num_only_in_b: int
    is_same_order: bool
    """Whether the contents in both stand in the same order."""
    why_only_in_a: dict[str, int]
    """What B says of the rows it does not have as documents, and how many of each."""
    why_only_in_b: dict[str, int]
    examples: list[Example]

    @property
    def is_equal(self) -> bool:
        """Whether both are the same data, byte for byte."""
        return self.manifest_sha256[0] == self.manifest_sha256[1]

    @property
    def unknown(self) -> dict[str, str]:
        """What could not be counted, and why."""
        reason = "a side has no documents.jsonl.zst, which names the sources"
        return {} if self.num_moved is not None else dict.fromkeys(_BY_PLACE, reason)

    def as_dict(self) -> dict[str, Any]:
        """The object that `apr tokenize diff --json` prints."""
        paths = {"a": str(self.a), "b": str(self.b)}
        return {"equal": self.is_equal} | asdict(self) | paths | {"unknown": self.unknown}


def compare(a: Path, b: Path, *, num_examples: int = 10, progress: Report = silent) -> Difference:
    """Compare two directories, naming up to `num_examples` documents of each kind.

    Every byte is hashed first: two equal manifests are equal data only while both are true.

    Refuses: what opening a directory refuses, and shards.provenance-damaged.
    """
    sides = _Side.open(a, progress), _Side.open(b, progress)
    pairs = _pair(*sides)
    whys = _why(sides[0], sides[1], pairs.only_in_a), _why(sides[1], sides[0], pairs.only_in_b)
    common_b = np.concatenate([pairs.same_b, pairs.moved_b])
    common_a = np.concatenate([pairs.same_a, pairs.moved_a])
    return Difference(
        a=a,
        b=b,
        manifest_sha256=(sides[0].reader.manifest_sha256, sides[1].reader.manifest_sha256),
        fields=_differing_fields(sides[0].reader.manifest, sides[1].reader.manifest),
        num_same=len(pairs.same_a),
        num_moved=len(pairs.moved_a) if pairs.has_places else None,
        num_changed=len(pairs.changed_a) if pairs.has_places else None,
        num_only_in_a=len(pairs.only_in_a),
        num_only_in_b=len(pairs.only_in_b),
        is_same_order=bool((np.diff(common_b[np.argsort(common_a)]) > 0).all()),
        why_only_in_a=dict(Counter(whys[0])),
        why_only_in_b=dict(Counter(whys[1])),
        examples=_with_places(sides, list(_examples(sides, pairs, whys, num_examples))),
    )


@dataclass(frozen=True)
class _Side:
    """One directory: its documents by content, and by place where it knows them."""

    reader: ShardReader
    hashes: Keys
    origins: Origins | None

    @classmethod
    def open(cls, directory: Path, progress: Report) -> "_Side":
        reader = ShardReader.open(directory, progress=progress)
        hashes = np.ascontiguousarray(reader.document_hashes)
        keys = hashes.view(f"V{hashes.shape[1]}").ravel()
        return cls(reader, keys, read_origins(directory, num_documents=reader.num_documents))

    def hash_of(self, document_index: int | None) -> str | None:
        """The content hash of one document, for a person."""
        if document_index is None:
            return None
        return self.reader.document_hashes[document_index].tobytes().hex()


@dataclass(frozen=True)
class _Pairs:
    """Document numbers on either side, by what became of them."""

    has_places: bool
    same_a: Places
    same_b: Places
    moved_a: Places
    moved_b: Places
    changed_a: Places
    changed_b: Places
    only_in_a: Places
    only_in_b: Places


def _pair(a: _Side, b: _Side) -> _Pairs:
    if a.origins is None or b.origins is None:
        same_a, same_b = pair_equal(a.hashes, b.hashes)
        none = np.empty(0, np.int64)
        only = all_but(len(a.hashes), same_a), all_but(len(b.hashes), same_b)
        return _Pairs(False, same_a, same_b, none, none, none, none, *only)
    places_a, places_b = a.origins.documents, b.origins.documents
    same_a, same_b = pair_equal(joined(a.hashes, places_a), joined(b.hashes, places_b))
    left_a, left_b = all_but(len(a.hashes), same_a), all_but(len(b.hashes), same_b)
    at_a, at_b = pair_equal(a.hashes[left_a], b.hashes[left_b])
    moved_a, moved_b = left_a[at_a], left_b[at_b]
    left_a, left_b = left_a[all_but(len(left_a), at_a)], left_b[all_but(len(left_b), at_b)]
    at_a, at_b = pair_equal(places_a[left_a], places_b[left_b])
    changed_a, changed_b = left_a[at_a], left_b[at_b]
    only = left_a[all_but(len(left_a), at_a)], left_b[all_but(len(left_b), at_b)]
    return _Pairs(True, same_a, same_b, moved_a, moved_b, changed_a, changed_b, *only)


def _why(side: _Side, other: _Side, documents: Places) -> list[str]:
    """What the other side says of each of these documents, which it does not have."""
    if side.origins is None or other.origins is None:
        return ["unknown"] * len(documents)
    reasons = ["not in the input"] * len(documents)
    places = side.origins.documents[documents]
    for place in pair_equal(places, other.origins.documents)[0].tolist():
        reasons[place] = "another document stands there"
    at, fates = pair_equal(places, other.origins.left_out)
    for place, fate in zip(at.tolist(), fates.tolist(), strict=True):
        reasons[place] = other.origins.reason(fate)
    return reasons


def _examples(
    sides: tuple[_Side, _Side],
    pairs: _Pairs,
    whys: tuple[list[str], list[str]],
    num_examples: int,
) -> Iterator[Example]:
    def example(kind: str, a: int | None, b: int | None, why: str | None = None) -> Example:
        return Example(kind, a, b, sides[0].hash_of(a), sides[1].hash_of(b), why=why)

    for kind, in_a, in_b in (
        ("moved", pairs.moved_a, pairs.moved_b),
        ("changed", pairs.changed_a, pairs.changed_b),
    ):
        for at_a, at_b in zip(in_a[:num_examples], in_b[:num_examples], strict=True):
            yield example(kind, int(at_a), int(at_b))
    for at, why in zip(pairs.only_in_a[:num_examples].tolist(), whys[0], strict=False):
        yield example("only in a", at, None, why)
    for at, why in zip(pairs.only_in_b[:num_examples].tolist(), whys[1], strict=False):
        yield example("only in b", None, at, why)


def _with_places(sides: tuple[_Side, _Side], examples: list[Example]) -> list[Example]:
    in_a = document_places(
        sides[0].reader.directory,
        [example.document_a for example in examples if example.document_a is not None],
    )
    in_b = document_places(
        sides[1].reader.directory,
        [example.document_b for example in examples if example.document_b is not None],
    )
    return [
        replace(
            example,
            place_a=in_a[example.document_a].place if example.document_a in in_a else None,
            place_b=in_b[example.document_b].place if example.document_b in in_b else None,
        )
        for example in examples
    ]


def _differing_fields(a: Manifest, b: Manifest) -> dict[str, tuple[Any, Any]]:
    fields_a, fields_b = _flat(a), _flat(b)
    names = [*fields_a, *(name for name in fields_b if name not in fields_a)]
    values = {name: (fields_a.get(name), fields_b.get(name)) for name in names}
    return {name: both for name, both in values.items() if both[0] != both[1]}


def _flat(manifest: Manifest) -> dict[str, Any]:
    """The fields by name, those of objects inside as `statistics.unk_rate`; shards by one hash."""
    fields: dict[str, Any] = manifest.model_dump(by_alias=True, exclude={"shards"})
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        inner = cast("dict[str, Any]", value) if isinstance(value, dict) else None
        flat |= {name: value} if inner is None else {f"{name}.{key}": inner[key] for key in inner}
    bytes_of_all = "".join(shard.sha256 for shard in manifest.shards)
    return flat | {"shards": sha256_bytes(bytes_of_all.encode("ascii"))}
