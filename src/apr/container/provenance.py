"""The provenance chain of a container: who said or did what, in order, only ever appended to.

An entry that `apr stamp` appends names all earlier entries by hash and ends with a hash of its
own, so an entry that is edited, dropped or moved later no longer fits. Anyone can compute the
hashes anew: they show accidents and careless edits, they are no signature.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from apr.container import free_keys
from apr.container.named_keys import Metadata
from apr.files import sha256_bytes

PREVIOUS = "previous_sha256"
"""Key of an entry: sha256 of the canonical JSON of all entries before it."""
OWN = "entry_sha256"
"""Key of an entry: sha256 of the canonical JSON of the entry without this key."""


@dataclass(frozen=True)
class Chain:
    """How the entries of a file stand."""

    verdict: Literal["PASS", "FAIL"] | None
    """None where no entry carries a hash, so that nothing could be compared."""
    found: str


def entries_of(metadata: Metadata) -> list[dict[str, Any]]:
    """The entries, in order; what is no object is left out, and `check_chain` says so."""
    stored = metadata.free.get(free_keys.PROVENANCE)
    if not isinstance(stored, list):
        return []
    return [
        cast(dict[str, Any], entry) for entry in cast(list[Any], stored) if isinstance(entry, dict)
    ]


def chained(earlier: Sequence[Mapping[str, Any]], entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry with the hashes that bind it to all earlier ones."""
    bound = dict(entry) | {PREVIOUS: _sha256(list(earlier))}
    return bound | {OWN: _sha256(bound)}


def check_chain(metadata: Metadata) -> Chain:
    """Compute every hash of the chain again."""
    stored = metadata.free.get(free_keys.PROVENANCE, [])
    entries = entries_of(metadata)
    if not isinstance(stored, list) or len(entries) != len(cast(list[Any], stored)):
        return Chain("FAIL", f"something else than a list of objects: {stored!r:.60}")
    num_hashed = 0
    for number, entry in enumerate(entries, start=1):
        if PREVIOUS not in entry and OWN not in entry:
            continue
        num_hashed += 1
        alone = {key: value for key, value in entry.items() if key != OWN}
        if entry.get(OWN) != _sha256(alone):
            return Chain("FAIL", f"entry {number} of {len(entries)} is not what its hash says")
        if entry.get(PREVIOUS) != _sha256(entries[: number - 1]):
            found = f"an entry before entry {number} was edited, dropped, added or moved"
            return Chain("FAIL", found)
    if not num_hashed:
        what = f"{len(entries)} entries, none with a hash" if entries else "no provenance"
        return Chain(None, what)
    return Chain("PASS", f"{num_hashed} of {len(entries)} entries are hashed and agree")


def _sha256(value: Any) -> str:
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return sha256_bytes(text.encode("utf-8"))
