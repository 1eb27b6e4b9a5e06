"""Where a repaired manifest goes: beside the shards, or into a new directory with links to them.

In place only files are added, and the old manifest's content is kept in repair.json. Shards whose
names are not ours are never renamed: they are linked under the right names in a new directory.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from apr import __version__
from apr.corpus.reading.locations import location_text
from apr.errors import Refusal
from apr.files import (
    atomic_directory,
    io_refusals,
    require_absent,
    require_apart,
    require_replaceable,
    sync_directory,
    write_bytes,
    write_json,
)
from apr.shards.layout import index_name, shard_name
from apr.shards.manifest import MANIFEST_NAME, Manifest, write_manifest
from apr.shards.reader import ShardReader
from apr.shards.repairing.bare import RECORD_NAME, BareShards

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
            manifest_sha256 = _write_in_place(self.directory, manifest, indexes, record)
            ShardReader.open(self.directory, verify=False)
            return manifest_sha256
        with atomic_directory(self.directory, overwrite=self.overwrite) as staged:
            for number, file in enumerate(self.bare.files):
                _link(file, staged / shard_name(number))
            manifest_sha256 = _write_files(staged, manifest, indexes, record)
            ShardReader.open(staged, verify=False)
        return manifest_sha256


def _replaced(bare: BareShards) -> list[Path]:
    """What a repair in place writes over, but for an old manifest, whose content is kept."""
    paths = [*sorted(bare.directory.glob("*.idx")), bare.directory / RECORD_NAME]
    return paths if bare.is_old_manifest_in_place else [*paths, bare.directory / MANIFEST_NAME]


def _write_files(
    directory: Path, manifest: Manifest, indexes: Sequence[bytes], record: Mapping[str, object]
) -> str:
    for number, index in enumerate(indexes):
        write_bytes(directory / index_name(shard_name(number)), index)
    write_json(directory / RECORD_NAME, record)
    return write_manifest(directory, manifest)


def _write_in_place(
    directory: Path, manifest: Manifest, indexes: Sequence[bytes], record: Mapping[str, object]
) -> str:
    """Write all files aside first, so that a full disk costs nothing that was there."""
    with io_refusals(directory):
        scratch = Path(tempfile.mkdtemp(prefix=".repair.", suffix=".tmp", dir=directory))
        new, old = scratch / "new", scratch / "old"
        try:
            new.mkdir()
            old.mkdir()
            manifest_sha256 = _write_files(new, manifest, indexes, record)
            _exchange(directory, new, old)
        except BaseException:
            # What could not be put back stays in it.
            if not (old.exists() and any(old.iterdir())):
                shutil.rmtree(scratch, ignore_errors=True)
            raise
        shutil.rmtree(scratch, ignore_errors=True)
    return manifest_sha256


def _exchange(directory: Path, new: Path, old: Path) -> None:
    """Move new files in, the manifest last, and what they replace out; all of them or none."""
    names = sorted((file.name for file in new.iterdir()), key=lambda name: name == MANIFEST_NAME)
    moved: list[str] = []
    try:
        for name in names:
            moved.append(name)
            if (directory / name).exists():
                (directory / name).replace(old / name)
            (new / name).replace(directory / name)
        sync_directory(directory)
    except BaseException:
        for name in moved:
            if (old / name).exists():
                (old / name).replace(directory / name)
            elif not (new / name).exists():
                (directory / name).unlink(missing_ok=True)
        raise


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
