"""A directory of shards as its manifest describes it, whether or not its tokens are open."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from apr.shards.manifest import Manifest


class Described(Protocol):
    """What can be asked of shards without their tokens; a `ShardReader` is one."""

    @property
    def directory(self) -> Path:
        """Where they lie."""
        ...

    @property
    def manifest(self) -> Manifest:
        """What they say of themselves."""
        ...


@dataclass(frozen=True)
class Description:
    """A directory of which nothing but the manifest was read."""

    directory: Path
    manifest: Manifest
