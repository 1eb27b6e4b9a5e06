"""What came out of a repair, and what a person should know before trusting it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apr.shards.manifest import Manifest, Repaired
from apr.shards.repairing.bare import OldManifest


@dataclass(frozen=True)
class Repair:
    """What was made of a directory of bare shards."""

    directory: Path
    """Where the manifest is: the directory itself, or the new one."""
    manifest: Manifest
    manifest_sha256: str
    old_manifest: OldManifest | None

    @property
    def repaired(self) -> Repaired:
        """What the manifest says of its own doubts."""
        assert self.manifest.repaired is not None
        return self.manifest.repaired

    @property
    def doubts(self) -> list[str]:
        """What a person should know before trusting the directory."""
        return list(self._doubts())

    def as_dict(self) -> dict[str, Any]:
        """The object that `apr tokenize repair-manifest --json` prints."""
        return {
            "output": str(self.directory),
            "manifest_sha256": self.manifest_sha256,
            "doubts": self.doubts,
        } | self.manifest.model_dump(by_alias=True)

    def _doubts(self) -> Iterator[str]:
        most_high_half = (self.manifest.vocab_size - 1) >> 16
        yield (
            "the width of the ids is not on record; two-byte ids read as four would be in range "
            f"only if every second one were {most_high_half} or less"
        )
        old = self.old_manifest
        if old is None:
            yield "without an old manifest nobody counted the shards: some may be missing or stale"
        elif old.vocab_size not in (None, self.manifest.vocab_size):
            yield (
                f"the old manifest counts {old.vocab_size} tokens in the vocabulary, the tokenizer "
                f"{self.manifest.vocab_size}"
            )
        if self.repaired.num_compared == 0:
            yield "no document is short enough to be encoded: nothing speaks for the tokenizer"
        elif 2 * self.repaired.num_same_ids < self.repaired.num_compared:
            yield "most documents come out with other ids: this tokenizer did not make them"
