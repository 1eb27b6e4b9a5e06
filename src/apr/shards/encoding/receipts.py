"""A finished task on disk: its ids, its documents, and the receipt that accounts for both.

    parts/KEY/tokens.bin            ids, little-endian u32, each document with its separator
    parts/KEY/documents.idx         end and hash of every document, as in a shard's index
    parts/KEY/documents.jsonl.zst   the fate of every row that was read
    parts/KEY/counts.zst            how often each id occurs, u64 by id, separators left out
    parts/KEY/receipt.json          all of it by size and hash, and what was read

A directory appears whole, by one rename. It counts only while its receipt verifies: against its
own files, and against the input as it is now.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import zstandard
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apr.corpus.reading.account import Account
from apr.corpus.reading.spans import span_sha256
from apr.errors import Refusal
from apr.files import io_refusals, parse_json, sha256_file
from apr.shards.encoding.plan import Task

TOKENS, INDEX, PROVENANCE = "tokens.bin", "documents.idx", "documents.jsonl.zst"
COUNTS, RECEIPT = "counts.zst", "receipt.json"
PART_FILES = (TOKENS, INDEX, PROVENANCE, COUNTS)

_COUNT_DTYPE = np.dtype("<u8")

Count = Annotated[int, Field(ge=0, lt=1 << 63)]


class Receipt(BaseModel):
    """What one task read and what it made of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    key: str
    input_sha256: list[str]
    """One for each span, of the bytes as they were read."""
    files: dict[str, tuple[Count, str]]
    """Size and sha256 of every file of the part."""
    account: dict[str, Any]
    """The fates of all rows, as `Account.as_dict` gives them."""
    matched_removals: list[Count]
    """Which removal lists name a document of the task, by their numbers in the settings."""
    num_documents: Count
    num_tokens: Count
    """Separators included."""
    text_bytes: Count
    longest_run: Count
    num_documents_changed_by_normalizer: Count
    num_documents_with_control_text: Count
    control_text_examples: list[str]
    num_shadowed: Count
    """Documents that the reference encoded as well."""
    num_decoded: Count
    """Documents whose ids were decoded and compared with their text."""

    def read_account(self) -> Account:
        """The fates of the task's rows."""
        return Account.from_dict(self.account)


def pack_counts(counts: NDArray[np.int64]) -> bytes:
    """Token counts as a part stores them; most are zero."""
    return zstandard.ZstdCompressor(level=1).compress(counts.astype(_COUNT_DTYPE).tobytes())


def read_counts(part: Path, *, vocab_size: int) -> NDArray[np.int64]:
    """The token counts of a part."""
    size_bytes = vocab_size * _COUNT_DTYPE.itemsize
    data = (part / COUNTS).read_bytes()
    raw = zstandard.ZstdDecompressor().decompress(data, max_output_size=size_bytes)
    return np.frombuffer(raw, _COUNT_DTYPE).astype(np.int64)


def read_receipt(part: Path) -> Receipt | None:
    """The receipt of a part, None where there is none that can be read."""
    try:
        value: Any = parse_json((part / RECEIPT).read_bytes())
        return Receipt.model_validate(value, strict=False)
    except (OSError, ValueError, ValidationError):
        return None


def verified_receipt(part: Path, task: Task) -> Receipt | None:
    """The receipt of a part that is whole and whose input is still the same, else None."""
    receipt = read_receipt(part)
    if receipt is None or receipt.key != task.key or {*receipt.files} != {*PART_FILES}:
        return None
    if len(receipt.input_sha256) != len(task.spans):
        return None
    try:
        for name, (size_bytes, sha256) in receipt.files.items():
            path = part / name
            if path.stat().st_size != size_bytes or sha256_file(path) != sha256:
                return None
        if receipt.input_sha256 != [span_sha256(span) for span in task.spans]:
            return None
    except (OSError, Refusal):
        return None
    return receipt


def file_identities(part: Path) -> dict[str, tuple[int, str]]:
    """Size and sha256 of the files of a part, as its receipt lists them."""
    with io_refusals(part):
        return {
            name: ((part / name).stat().st_size, sha256_file(part / name)) for name in PART_FILES
        }


def total(receipts: Sequence[Receipt], name: str) -> int:
    """The sum of one count over all receipts."""
    return sum(getattr(receipt, name) for receipt in receipts)


def merged_account(accounts: Iterable[Account]) -> Account:
    """The fates of all rows, in the order of the input."""
    merged = Account()
    for account in accounts:
        merged.merge(account)
    return merged
