"""Finished parts become numbered shards, in the order of the plan.

Parts are joined and cut again at `shard_tokens`, so that the shards do not show where one task
ended. What the receipts promised is counted again on the way.
"""

import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apr.corpus.identity import DOCUMENT_HASH_BYTES, documents_sha256
from apr.corpus.reading.account import LeftOut
from apr.errors import DamagedFile
from apr.progress import Progress, Report
from apr.shards.encoding import receipts
from apr.shards.encoding.fates import Fates
from apr.shards.encoding.plan import Settings
from apr.shards.encoding.receipts import Receipt
from apr.shards.layout import TOKEN_DTYPE, index_name, read_index
from apr.shards.manifest import ShardFile, num_separators
from apr.shards.threads import by_threads
from apr.shards.writer import ShardCutter, write_shard

PROVENANCE_NAME = receipts.PROVENANCE


@dataclass(frozen=True)
class Merged:
    """What stands in the staged directory."""

    shards: list[ShardFile]
    num_tokens: int
    num_documents: int
    num_separators: int
    counts: NDArray[np.int64]
    documents_sha256: str


def merge_parts(
    parts: Path,
    finished: Sequence[Receipt],
    staged: Path,
    *,
    unopened: Iterable[LeftOut],
    settings: Settings,
    shard_tokens: int,
    vocab_size: int,
    num_threads: int,
    progress: Report,
    written: Callable[[Path], None] = lambda _path: None,
) -> Merged:
    """Write shards and provenance from the parts of all tasks.

    `unopened` is what listing the input left out before there was a task to account for it.
    `written` is told of every file that is complete.

    Refuses: shards.part-damaged, shards.shard-tokens, files.io-failed.
    Writes: shard-NNNNN.bin, shard-NNNNN.idx, documents.jsonl.zst.
    """
    with_documents = [receipt for receipt in finished if receipt.num_documents]
    counts = np.zeros(vocab_size, np.int64)
    all_hashes: list[bytes] = []
    cutter = ShardCutter(shard_tokens=shard_tokens)
    with Fates.written(staged / PROVENANCE_NAME) as fates:
        for each in unopened:
            fates.left_out(each)
    with (staged / PROVENANCE_NAME).open("ab") as provenance:
        for receipt in finished:
            part = parts / receipt.key
            with (part / receipts.PROVENANCE).open("rb") as rows:
                shutil.copyfileobj(rows, provenance, 1 << 20)
            counts += receipts.read_counts(part, vocab_size=vocab_size)
            if receipt.num_documents:
                trim = settings.eos_policy == "between" and receipt is with_documents[-1]
                all_hashes.append(_append(cutter, part, receipt, trim=trim))
    written(staged / PROVENANCE_NAME)
    shards = _write(cutter, staged, num_threads=num_threads, progress=progress, written=written)
    return Merged(
        shards=shards,
        num_tokens=cutter.num_tokens,
        num_documents=cutter.num_documents,
        num_separators=num_separators(settings.eos_policy, cutter.num_documents),
        counts=counts,
        documents_sha256=documents_sha256(
            np.frombuffer(b"".join(all_hashes), np.uint8).reshape(-1, DOCUMENT_HASH_BYTES)
        ),
    )


def _write(
    cutter: ShardCutter,
    staged: Path,
    *,
    num_threads: int,
    progress: Report,
    written: Callable[[Path], None],
) -> list[ShardFile]:
    total_bytes = cutter.num_tokens * TOKEN_DTYPE.itemsize
    done_bytes = 0
    lock = threading.Lock()

    def advance(num_bytes: int) -> None:
        nonlocal done_bytes
        with lock:
            done_bytes += num_bytes
            progress(Progress("writing shards", done_bytes, total_bytes, "bytes"))

    def write(number: int) -> ShardFile:
        shard = write_shard(staged, number, cutter.shards[number], listener=advance)
        written(staged / shard.file)
        written(staged / index_name(shard.file))
        return shard

    return list(by_threads(write, range(len(cutter.shards)), num_threads=num_threads))


def _append(cutter: ShardCutter, part: Path, receipt: Receipt, *, trim: bool) -> bytes:
    """Add one part; with `trim`, without the separator after its last document."""
    _require_size(part / receipts.TOKENS, receipt.num_tokens)
    index = read_index(
        part / receipts.INDEX,
        num_tokens=receipt.num_tokens,
        num_documents=receipt.num_documents,
    )
    ends = index.document_ends.astype(np.int64)
    ends[-1] -= trim
    hashes = index.document_hashes.tobytes()
    cutter.append(part / receipts.TOKENS, ends, hashes)
    return hashes


def _require_size(path: Path, num_tokens: int) -> None:
    expected_bytes = num_tokens * TOKEN_DTYPE.itemsize
    size_bytes = path.stat().st_size
    if size_bytes != expected_bytes:
        raise DamagedFile(
            "shards.part-damaged",
            path,
            found=f"{size_bytes} bytes",
            expected=f"{expected_bytes} bytes, as its receipt says",
            fix="run the same command again; the damaged part is then made anew",
        )
