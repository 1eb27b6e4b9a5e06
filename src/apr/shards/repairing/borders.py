"""Where documents end in a stream of ids that nobody recorded: at its separators.

The Rust tool never splits a document over two shards, and puts a separator after each document or
between two of them. One that comes between two shards may stand at the end of the first or at the
beginning of the second, which then still belongs to the document that follows it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apr.errors import DamagedFile, Refusal
from apr.progress import Progress, Report, silent
from apr.shards.layout import TOKEN_DTYPE
from apr.shards.manifest import EosPolicy
from apr.shards.repairing.bare import BareShards, contradicted

_CHUNK_TOKENS = 1 << 22


@dataclass(frozen=True)
class Borders:
    """Ends of the documents of each shard, counted in its own tokens."""

    ends: list[NDArray[np.int64]]
    eos_policy: EosPolicy
    eos_token_id: int | None
    num_separators: int

    @property
    def num_documents(self) -> int:
        """Documents in all shards; with the policy `none`, one for each shard."""
        return sum(len(ends) for ends in self.ends)


def find_borders(
    bare: BareShards,
    *,
    vocab_size: int,
    eos_token_id: int | None,
    eos_policy: EosPolicy | None,
    progress: Report = silent,
) -> Borders:
    """Read every id, and cut the shards into documents at the id of the separator.

    Without `eos_policy`, or what the old manifest says of it, the policy follows from the counts.

    Refuses: shards.id-range (INV-PRETOK-001), shards.repair-separator, shards.repair-borders,
    shards.repair-policy, shards.repair-contradicted, files.io-failed.
    """
    old = bare.old_manifest
    wanted = eos_policy or (old.eos_policy if old else None)
    separators = _separators(bare, vocab_size, eos_token_id, progress)
    num_separators = sum(map(len, separators))
    if wanted == "none":
        whole = [np.array([_num_tokens(file)], np.int64) for file in bare.files]
        return Borders(whole, "none", None, 0)
    if not num_separators:
        raise Refusal(
            "shards.repair-separator",
            bare.directory,
            found=f"no separator (id {eos_token_id}) in {bare.total_tokens} tokens",
            expected="the token that ends documents, as the encoding declared it",
            fix="name it with --eos-token; if there is none, --eos-policy none takes each shard "
            "for one document",
        )
    ends = _ends(bare, separators)
    found = _policy(bare, separators, num_documents=sum(map(len, ends)))
    if wanted is not None and wanted != found:
        raise Refusal(
            "shards.repair-policy",
            bare.directory,
            found=f"{num_separators} separators for {sum(map(len, ends))} documents: {found}",
            expected=f"{wanted}, as "
            + ("--eos-policy says" if eos_policy else "the old manifest says"),
            fix=f"pass --eos-policy {found} if the shards are right",
        )
    borders = Borders(ends, found, eos_token_id, num_separators)
    if old and old.total_documents not in (None, borders.num_documents):
        found_documents = f"total_documents {borders.num_documents}"
        raise contradicted(
            bare.directory, found_documents, f"total_documents {old.total_documents}"
        )
    return borders


def _separators(
    bare: BareShards, vocab_size: int, eos_token_id: int | None, progress: Report
) -> list[NDArray[np.int64]]:
    """Places of the separator in each shard, once every id is known to be one."""
    places: list[NDArray[np.int64]] = []
    done_tokens, total_tokens = 0, bare.total_tokens
    for file in bare.files:
        ids = np.memmap(file, dtype=TOKEN_DTYPE, mode="r")
        in_file: list[NDArray[np.int64]] = []
        for start in range(0, len(ids), _CHUNK_TOKENS):
            chunk = ids[start : start + _CHUNK_TOKENS]
            if int(chunk.max()) >= vocab_size:
                raise _id_range(file, ids, vocab_size, place=start + int(chunk.argmax()))
            if eos_token_id is not None:
                in_file.append(np.flatnonzero(chunk == eos_token_id) + start)
            done_tokens += len(chunk)
            progress(Progress("finding documents", done_tokens, total_tokens, "tokens"))
        places.append(np.concatenate([*in_file, np.empty(0, np.int64)]).astype(np.int64))
    return places


def _ends(bare: BareShards, separators: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    ends: list[NDArray[np.int64]] = []
    is_ended = True
    for file, places in zip(bare.files, separators, strict=True):
        num_tokens = _num_tokens(file)
        in_file = places + 1
        # It ends the last document of the shard before, which has no room for an end here.
        if not is_ended and len(places) and places[0] == 0 and num_tokens > 1:
            in_file = in_file[1:]
        is_ended = bool(len(places)) and int(places[-1]) == num_tokens - 1
        ends.append(in_file if is_ended else np.append(in_file, num_tokens))
    return ends


def _policy(
    bare: BareShards, separators: list[NDArray[np.int64]], *, num_documents: int
) -> EosPolicy:
    num_separators = sum(map(len, separators))
    ends_with_one = len(separators[-1]) and separators[-1][-1] == _num_tokens(bare.files[-1]) - 1
    if num_documents == num_separators and ends_with_one:
        return "after"
    if num_documents == num_separators + 1 and not ends_with_one:
        return "between"
    raise Refusal(
        "shards.repair-borders",
        bare.directory,
        found=f"{num_separators} separators, and shards that end where no document does",
        expected="whole documents in every shard",
        fix="encode the corpus again, or take each shard for one document: --eos-policy none",
    )


def _id_range(file: Path, ids: NDArray[np.uint32], vocab_size: int, *, place: int) -> DamagedFile:
    """An id too large; where it is two small ones in a row, it says so."""
    halves = ids[: min(len(ids), 1 << 20)].view(np.dtype("<u2"))
    narrow = bool((halves < vocab_size).all()) and vocab_size <= 1 << 16
    return DamagedFile(
        "shards.id-range",
        file,
        found=f"id {ids[place]} at token {place}"
        + ("; read as two-byte ids all would be in range" if narrow else ""),
        expected=f"ids below {vocab_size}, the tokenizer's size",
        fix="pass the tokenizer that made the shards; shards of two-byte ids have to be encoded "
        "again",
        upstream_id="INV-PRETOK-001",
    )


def _num_tokens(file: Path) -> int:
    return file.stat().st_size // TOKEN_DTYPE.itemsize
