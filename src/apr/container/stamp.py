"""Stamping a container: who made it, from what, under which licence, and what it is.

A stamp is a claim, so it is checked before it is written: an identity against the tensors, a
licence against SPDX, a tokenizer against the embedding and against the one the model has. The file
is proved byte by byte before it is copied, because the copy gets a footer of its own, and a
damaged file must not come out with a good one. Tensors are copied as they are.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

from apr import __version__
from apr.container import free_keys, layout
from apr.container.contents import EMBEDDING
from apr.container.embedded_tokenizer import embed_tokenizer
from apr.container.identity import IDENTITY_KEYS, Identity, check_identity
from apr.container.integrity import recorded_sha256, require_intact
from apr.container.layout import TensorEntry
from apr.container.named_keys import Metadata
from apr.container.provenance import chained, check_chain, entries_of
from apr.container.reader import Container
from apr.container.scan import Scan
from apr.container.spdx import require_spdx
from apr.container.writer import TensorSource, write_container
from apr.errors import DamagedFile, PathNotFound, Refusal, UsageRefusal
from apr.files import (
    io_refusals,
    read_chunks,
    require_absent,
    require_writable_place,
    sync_directory,
)
from apr.progress import Report, silent
from apr.staging import staging_directory
from apr.tokenizer.tokenizer import Tokenizer

_CHUNK_BYTES = 8 << 20

_KEPT_TOKENIZER_KEYS = ("tokenizer.chat_template",)


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What is stamped; None leaves a field as it is."""

    name: str | None = None
    description: str | None = None
    author: str | None = None
    license: str | None = None
    """SPDX expression."""
    data_source: str | None = None
    data_license: str | None = None
    """SPDX expression."""
    architecture: str | None = None
    hf_architecture: str | None = None
    hf_model_type: str | None = None
    pretraining_tokens: int | None = None
    tokenizer: Path | None = None
    """A tokenizer directory or a bare tokenizer.json, embedded exactly."""


@dataclass(frozen=True)
class Stamped:
    """A file before and after it was stamped."""

    input: dict[str, Any]
    output: dict[str, Any]
    num_tensors: int
    fields: dict[str, dict[str, Any]]
    """By field: what it was, and what it is now."""
    identity: Identity
    flags: list[str]
    flags_dropped: list[str]
    """Flags of the old file whose meaning is not known well enough to write them."""
    entry: dict[str, Any]
    """The new entry of the provenance chain."""
    num_entries: int

    def as_dict(self) -> dict[str, Any]:
        """The object that `apr stamp --json` prints."""
        return asdict(self)


def stamp(
    path: Path,
    claims: Claims,
    *,
    output: Path | None = None,
    overwrite: bool = False,
    progress: Report = silent,
) -> Stamped:
    """Copy a container with some metadata set and an entry appended to its provenance.

    Without `output` the file itself is replaced, once the new one has been read back.

    Refuses: stamp.nothing-to-stamp, stamp.not-spdx, stamp.identity-contradicts-tensors,
    stamp.identity-contradicts-itself, stamp.identity-unknown, stamp.tokenizer-too-large,
    stamp.tokenizer-differs, stamp.provenance-edited, stamp.tensors-differ, files.exists,
    files.output-overlaps-input, files.io-failed, container.not-a-file, tokenizer.*, and what
    opening, verifying and writing a container refuses.
    Writes: `output`, or `path`.
    """
    values = _values(claims)
    target = _target(path, output, overwrite=overwrite)
    tokenizer = None if claims.tokenizer is None else Tokenizer.load(claims.tokenizer)
    with Container.open(path) as container:
        seen = _proved(container, progress)
        _require_whole_chain(container)
        if tokenizer is not None:
            _require_fits(tokenizer, container)
        before = container.metadata
        after = _set(before, values, tokenizer, where=str(path))
        identity = _require_identity(container, after, values)
        changes = _changes(before, after, values, tokenizer)
        dropped = container.sections.header.flags & ~_WRITTEN_FLAGS
        entry = _entry(claims, changes, before, after, seen, layout.flag_names(dropped))
        entries = [*entries_of(before), chained(entries_of(before), entry)]
        after = after.with_free({free_keys.PROVENANCE: entries})
        with io_refusals(target), staging_directory(target.parent, target.name) as staged:
            copy = staged / target.name
            _write(copy, after, container, progress)
            written, flags = _require_same_tensors(copy, seen, progress)
            if output is not None:
                require_absent(target, overwrite=overwrite)
            copy.replace(target)
            sync_directory(target.parent)
    return Stamped(
        input=_file(path, seen),
        output=_file(target, written),
        num_tensors=len(seen.tensor_sha256),
        fields=changes,
        identity=identity,
        flags=layout.flag_names(flags),
        flags_dropped=layout.flag_names(dropped),
        entry=entries[-1],
        num_entries=len(entries),
    )


_WRITTEN_FLAGS = layout.ROW_MAJOR | layout.HAS_VOCAB | layout.QUANTIZED


def _values(claims: Claims) -> dict[str, Any]:
    """The fields that were given, licences in their canonical spelling."""
    given = {
        field.name: value
        for field in fields(claims)
        if (value := getattr(claims, field.name)) is not None
    }
    names = ", ".join(f"--{field.name.replace('_', '-')}" for field in fields(claims))
    empty = [name for name, value in given.items() if isinstance(value, str) and not value.strip()]
    tokens = given.get("pretraining_tokens", 1)
    if type(tokens) is not int or not 0 < tokens < 1 << 63:
        empty.append("pretraining_tokens")
    if not given or empty:
        raise UsageRefusal(
            "stamp.nothing-to-stamp",
            f"--{empty[0].replace('_', '-')}" if empty else "apr stamp",
            found=repr(given[empty[0]]) if empty else "no field",
            expected=f"at least one of {names}, with a value",
            fix="say what to stamp",
        )
    for key in ("license", "data_license"):
        if key in given:
            given[key] = require_spdx(given[key], where=f"--{key.replace('_', '-')}")
    return given


def _target(path: Path, output: Path | None, *, overwrite: bool) -> Path:
    if output is None:
        # What a link leads to is replaced, and not the link.
        target = Path(os.path.realpath(path))
        require_writable_place(target)
        return target
    if path.exists() and output.exists() and output.samefile(path):
        raise UsageRefusal(
            "files.output-overlaps-input",
            output,
            found="the file that is read",
            expected="an output apart from every input",
            fix="pass --in-place to replace the file, or name another output",
        )
    require_absent(output, overwrite=overwrite)
    if output.exists() and not output.is_file():
        raise PathNotFound(
            "container.not-a-file",
            output,
            found="a directory" if output.is_dir() else "something that is no regular file",
            expected="a name for an .apr file",
            fix="name the file itself",
        )
    require_writable_place(output)
    return output


def _proved(container: Container, progress: Report) -> Scan:
    """Every byte proved, and the hash of the file and of every tensor."""
    where = str(container.path)
    recorded = recorded_sha256(container.sections, where=where)
    seen = container.scan(hashed=container.tensors, with_file_sha256=True, progress=progress)
    require_intact(seen, container.sections, recorded, where=where)
    return seen


def _require_whole_chain(container: Container) -> None:
    chain = check_chain(container.metadata)
    if chain.verdict == "FAIL":
        raise DamagedFile(
            "stamp.provenance-edited",
            f"{container.path}, metadata key {free_keys.PROVENANCE}",
            found=chain.found,
            expected="entries that are as they were appended",
            fix="stamp the file as it was before its provenance was edited",
        )


def _require_fits(tokenizer: Tokenizer, container: Container) -> None:
    """Refuse a tokenizer that cannot be, or is not, the one whose ids the model has learned."""
    metadata, embedding = container.metadata, container.tensors.get(EMBEDDING)
    num_rows = embedding.shape[0] if embedding and embedding.shape else metadata.vocab_size
    if num_rows is None or tokenizer.vocab_size > num_rows:
        rows = "no embedding to compare with" if num_rows is None else f"{num_rows} rows"
        raise Refusal(
            "stamp.tokenizer-too-large",
            tokenizer.where,
            found=f"{tokenizer.vocab_size} ids, {rows}",
            expected="at most one id for each row of the embedding",
            fix="name the tokenizer that the model was trained with",
        )
    if difference := _difference(tokenizer, metadata):
        raise Refusal(
            "stamp.tokenizer-differs",
            tokenizer.where,
            found=difference,
            expected="the tokenizer whose ids the model has learned",
            fix="name the tokenizer that the model was trained with",
        )


def _difference(tokenizer: Tokenizer, metadata: Metadata) -> str | None:
    """What says that the model was trained with another tokenizer, if anything does."""
    free = metadata.free
    said = {free.get(free_keys.TOKENIZER_FINGERPRINT)}
    said |= {entry.get("tokenizer_fingerprint") for entry in entries_of(metadata)}
    for fingerprint in said - {None, tokenizer.fingerprint}:
        return f"fingerprint {tokenizer.fingerprint:.16}, the file says {fingerprint!s:.16}"
    listed = free.get(free_keys.VOCABULARY)
    if isinstance(listed, list):
        # Rust tools leave added tokens out at times, or pad the list to the rows.
        pairs = zip(tokenizer.vocabulary, cast(list[Any], listed), strict=False)
        for id, (ours, theirs) in enumerate(pairs):
            if ours != theirs:
                return f"id {id} is {ours!r:.40}, in the file {theirs!r:.40}"
    return None


def _set(
    before: Metadata, values: Mapping[str, Any], tokenizer: Tokenizer | None, *, where: str
) -> Metadata:
    spelled = before.spelled()
    if tokenizer is not None:
        # Scores, special ids and whatever else belonged to the vocabulary that is replaced.
        spelled = {key: value for key, value in spelled.items() if not _is_of_tokenizer(key)}
        spelled |= embed_tokenizer(tokenizer)
    named = {key: value for key, value in values.items() if key in Metadata.model_fields}
    if "pretraining_tokens" in values:
        spelled[free_keys.PRETRAINING_TOKENS] = values["pretraining_tokens"]
    return Metadata.from_object(spelled | named, where=where)


def _is_of_tokenizer(key: str) -> bool:
    ours = (free_keys.TOKENIZER_JSON, free_keys.TOKENIZER_FINGERPRINT, free_keys.EOS_TOKEN)
    return key in ours or (key.startswith("tokenizer.") and key not in _KEPT_TOKENIZER_KEYS)


def _require_identity(container: Container, after: Metadata, values: Mapping[str, Any]) -> Identity:
    """Refuse an identity that does not hold, and one claimed now that cannot be checked."""
    identity = check_identity(container, after)
    claimed = [f"--{key.replace('_', '-')}" for key in IDENTITY_KEYS if key in values]
    where = ", ".join(claimed) or str(container.path)
    if identity.contradicts == "tensors":
        raise Refusal(
            "stamp.identity-contradicts-tensors",
            where,
            found=identity.found,
            expected=identity.expected,
            fix="stamp the family that the tensors show, in all three identity fields",
            upstream_id="FALSIFY-INIT-ARCH-MATCH-001",
        )
    if identity.contradicts == "itself":
        raise Refusal(
            "stamp.identity-contradicts-itself",
            where,
            found=identity.found,
            expected=identity.expected,
            fix="give --architecture, --hf-architecture and --hf-model-type together",
        )
    if identity.verdict == "UNKNOWN" and claimed:
        raise Refusal(
            "stamp.identity-unknown",
            where,
            found=identity.found,
            expected=identity.expected,
            fix="only an identity that can be compared with the tensors is stamped",
        )
    return identity


def _changes(
    before: Metadata, after: Metadata, values: Mapping[str, Any], tokenizer: Tokenizer | None
) -> dict[str, dict[str, Any]]:
    old, new = (metadata.model_dump() for metadata in (before, after))
    changes = {
        key: {"from": old.get(stored), "to": new[stored]}
        for key in values
        for stored in [free_keys.PRETRAINING_TOKENS if key == "pretraining_tokens" else key]
        if key != "tokenizer"
    }
    if tokenizer is not None:
        fingerprints = [side.free.get(free_keys.TOKENIZER_FINGERPRINT) for side in (before, after)]
        changes["tokenizer"] = {"from": fingerprints[0], "to": fingerprints[1]}
    return changes


def _entry(
    claims: Claims,
    changes: dict[str, dict[str, Any]],
    before: Metadata,
    after: Metadata,
    seen: Scan,
    flags_dropped: list[str],
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "what": "stamp",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": claims.author or before.author,
        "apr_version": __version__,
        "fields": changes,
        "source_sha256": seen.file_sha256,
    }
    if removed := sorted(before.free.keys() - after.free.keys()):
        entry["removed_keys"] = removed
    if flags_dropped:
        entry["dropped_flags"] = flags_dropped
    return entry


def _write(target: Path, metadata: Metadata, container: Container, progress: Report) -> None:
    write_container(
        target,
        metadata=metadata,
        tensors=[_source(container, entry) for entry in container.tensors.values()],
        progress=progress,
    )


def _source(container: Container, entry: TensorEntry) -> TensorSource:
    chunks = partial(
        read_chunks,
        container.path,
        start=container.sections.header.data_offset + entry.offset,
        size_bytes=entry.size_bytes,
        chunk_bytes=_CHUNK_BYTES,
    )
    return TensorSource(entry.name, entry.dtype, entry.shape, chunks)


def _require_same_tensors(copy: Path, seen: Scan, progress: Report) -> tuple[Scan, int]:
    """Read the new file from disk and compare every tensor with what was read before."""
    with Container.open(copy) as container:
        flags = container.sections.header.flags
        written = container.scan(hashed=container.tensors, with_file_sha256=True, progress=progress)
    differing = [
        name
        for name in sorted({*seen.tensor_sha256, *written.tensor_sha256})
        if seen.tensor_sha256.get(name) != written.tensor_sha256.get(name)
    ]
    if differing:
        raise DamagedFile(
            "stamp.tensors-differ",
            copy.name,
            found=f"{len(differing)} tensors changed on the way, first {differing[0]!r:.80}",
            expected="the bytes that were verified before they were copied",
            fix="nothing was written; check the disk, and that nothing else writes to the file",
        )
    return written, flags


def _file(path: Path, seen: Scan) -> dict[str, Any]:
    return {"path": str(path), "size_bytes": seen.num_bytes, "sha256": seen.file_sha256}
