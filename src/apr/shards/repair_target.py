"""Where a repaired manifest goes: beside the shards, or into a new directory with links to them.

In place only files are added, and the old manifest's content is kept in repair.json. Shards whose
names are not ours are never renamed: they are linked under the right names in a new directory.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from apr import __version__
from apr.corpus.locations import location_text
from apr.errors import Refusal
from apr.files import (
    atomic_directory,
    io_refusals,
    require_absent,
    require_apart,
    require_replaceable,
    write_bytes,
    write_json,
)
from apr.shards.bare import RECORD_NAME, BareShards
from apr.shards.layout import index_name, shard_name
from apr.shards.manifest import MANIFEST_NAME, Manifest, write_manifest
from apr.shards.reader import ShardReader

_OUR_FILES = r"shard-\d{5}\.(bin|idx)|(manifest|repair)\.json"


@dataclass(frozen=True)
class RepairTarget:
    """The directory that will hold the manifest."""

    bare: BareShards
    directory: Path
    overwrite: bool

    @classmethod
    def choose(cls, bare: BareShards, into: Path | None, *, overwrite: bool) -> "RepairTarget":
        """Decide where to write, before any work is done.

        Refuses: shards.repair-names, files.exists, files.output-overlaps-input,
        files.foreign-content.
        """
        if into is None:
            _require_our_names(bare)
            for path in _replaced(bare):
                require_absent(path, overwrite=overwrite)
            return cls(bare, bare.directory, overwrite)
        require_apart(into, [bare.directory])
        require_absent(into, overwrite=overwrite)
        require_replaceable(into, names=_OUR_FILES, what="shards that were repaired")
        return cls(bare, into, overwrite)

    @property
    def empty_files(self) -> list[str]:
        """Shards without a token that stay in the directory."""
        in_place = self.directory == self.bare.directory
        return [file.name for file in self.bare.empty_files] if in_place else []

    def write(self, manifest: Manifest, indexes: Sequence[bytes], *, tokenizer_where: str) -> str:
        """Write everything, the manifest last; return the sha256 of its file.

        Refuses: files.io-failed, and what opening the result refuses.
        """
        record = {
            "apr_version": __version__,
            "tokenizer": location_text(tokenizer_where),
            "shards": {
                shard_name(number): location_text(file)
                for number, file in enumerate(self.bare.files)
            },
            "old_manifest": self.bare.old_manifest_value,
        }
        if self.directory == self.bare.directory:
            return _write_into(self.directory, manifest, indexes, record)
        with atomic_directory(self.directory, overwrite=self.overwrite) as staged:
            for number, file in enumerate(self.bare.files):
                _link(file, staged / shard_name(number))
            return _write_into(staged, manifest, indexes, record)


def _replaced(bare: BareShards) -> list[Path]:
    """What a repair in place writes over, but for an old manifest, whose content is kept."""
    paths = [*sorted(bare.directory.glob("*.idx")), bare.directory / RECORD_NAME]
    return paths if bare.is_old_manifest_in_place else [*paths, bare.directory / MANIFEST_NAME]


def _write_into(
    directory: Path, manifest: Manifest, indexes: Sequence[bytes], record: Mapping[str, object]
) -> str:
    written: list[Path] = []
    try:
        for number, index in enumerate(indexes):
            written.append(directory / index_name(shard_name(number)))
            write_bytes(written[-1], index)
        written.append(directory / RECORD_NAME)
        write_json(written[-1], record)
        manifest_sha256 = write_manifest(directory, manifest)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    ShardReader.open(directory, verify=False)
    return manifest_sha256


def _link(file: Path, name: Path) -> None:
    """Another name for the same bytes, which nobody changes; a copy where that cannot be."""
    with io_refusals(file):
        try:
            os.link(file, name)
        except OSError:
            shutil.copyfile(file, name)


def _require_our_names(bare: BareShards) -> None:
    for number, file in enumerate(bare.files):
        if file.name != shard_name(number):
            raise Refusal(
                "shards.repair-names",
                file,
                found=f"{file.name}, the shard with number {number} among those with tokens",
                expected=f"{shard_name(number)}",
                fix="pass --into NEW-DIRECTORY: the shards are linked there under these names",
                upstream_id="INV-PRETOK-004",
            )
