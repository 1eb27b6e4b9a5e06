"""One task: documents in, ids out, everything counted and proven on the way.

The work is done in batches of about a megabyte of text, so that memory does not grow with the
input and the cost of a call is shared by many documents.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from apr.corpus.document import data_hash
from apr.corpus.reading.account import Account
from apr.corpus.reading.span_reader import SpanReader
from apr.corpus.removals import Removals
from apr.errors import Refusal
from apr.files import io_refusals, write_bytes
from apr.shards.encoding import receipts
from apr.shards.encoding.batch import Batch, BatchIds
from apr.shards.encoding.fates import Fates
from apr.shards.encoding.plan import Settings, Task
from apr.shards.encoding.proof import ShadowCheck, SpellingProof
from apr.shards.encoding.receipts import Receipt
from apr.shards.encoding.statistics import Tally
from apr.shards.layout import index_bytes
from apr.tokenizer.conservation import bytes_per_id
from apr.tokenizer.encoders import Encoder
from apr.tokenizer.tokenizer import Tokenizer

_BATCH_BYTES = 1 << 20
_BATCH_DOCUMENTS = 4096


@dataclass(frozen=True)
class Advance:
    """How much more has been encoded since the last one."""

    text_bytes: int
    num_tokens: int

    def __add__(self, other: "Advance") -> "Advance":
        return Advance(self.text_bytes + other.text_bytes, self.num_tokens + other.num_tokens)


Listener = Callable[[Advance], None]


@dataclass(frozen=True)
class Encoding:
    """What every task of one encoding shares, loaded once per process."""

    settings: Settings
    tokenizer: Tokenizer
    encoder: Encoder
    reference: Encoder
    removals: Removals

    @cached_property
    def bytes_per_id(self) -> NDArray[np.uint16] | None:
        """Bytes of text that each id spells, None where they cannot be counted."""
        return bytes_per_id(self.tokenizer.definition)


def run_task(task: Task, encoding: Encoding, *, parts: Path, listener: Listener) -> None:
    """Encode the documents of one task into `parts`/KEY; the directory appears whole.

    Raises EncoderDiffers when the reference disagrees about a document.

    Refuses: corpus.* (what cannot be read), shards.text-lost, tokenizer.control-id,
    files.io-failed.
    Writes: parts/KEY with the files that `receipts` describes.
    """
    with io_refusals(parts):
        staged = Path(tempfile.mkdtemp(prefix=f"{task.key}.", suffix=".tmp", dir=parts))
        try:
            _PartWriter(staged, task, encoding, listener).write()
            try:
                staged.rename(parts / task.key)
            except OSError:
                # Another process finished the same task first; its part is the same.
                if not (parts / task.key / receipts.RECEIPT).exists():
                    raise
                shutil.rmtree(staged)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise


class _PartWriter:
    """The files of one part while they are written."""

    def __init__(self, part: Path, task: Task, encoding: Encoding, listener: Listener) -> None:
        self._part = part
        self._task = task
        self._encoding = encoding
        self._listener = listener
        self._tally = Tally(encoding.tokenizer)
        self._proof = SpellingProof(encoding.tokenizer, encoding.bytes_per_id)
        self._shadow = ShadowCheck(encoding.encoder, encoding.reference)
        self._input_sha256: list[str] = []
        self._num_tokens = 0
        self._ends: list[NDArray[np.int64]] = []
        self._hashes: list[bytes] = []
        owned = {bytes.fromhex(hash) for hash in task.owned}
        self._removals = encoding.removals.filter(owned=owned)

    def write(self) -> None:
        with ExitStack() as opened:
            tokens = opened.enter_context((self._part / receipts.TOKENS).open("wb"))
            fates = opened.enter_context(Fates.written(self._part / receipts.PROVENANCE))
            account = Account(record=fates.left_out)
            for batch in self._batches(account, fates):
                self._encode(batch, tokens)
        account.require_balanced()
        ends = np.concatenate(self._ends) if self._ends else np.empty(0, np.int64)
        write_bytes(self._part / receipts.INDEX, index_bytes(ends, b"".join(self._hashes)))
        write_bytes(self._part / receipts.COUNTS, receipts.pack_counts(self._tally.counts))
        receipt = self._receipt(account)
        write_bytes(self._part / receipts.RECEIPT, receipt.model_dump_json().encode("utf-8"))

    def _batches(self, account: Account, fates: Fates) -> Iterator[Batch]:
        """The documents of every span, less those that a removal list names."""
        batch, size_bytes = Batch(), 0
        for span in self._task.spans:
            reader = SpanReader(
                span,
                content_field=self._encoding.settings.content_field,
                account=account,
                # `apr corpus split` writes there where a document was before.
                extra_fields=("source",) if span.kind == "jsonl" else (),
            )
            for document in reader:
                data = document.text.encode("utf-8")
                digest = data_hash(data)
                reason = self._removals.reason(digest)
                if reason is not None:
                    account.withdraw(reason, document.source, document.row)
                    continue
                fates.kept(document)
                batch.append(document, data, digest)
                size_bytes += len(data)
                if size_bytes >= _BATCH_BYTES or len(batch.data) >= _BATCH_DOCUMENTS:
                    yield batch
                    batch, size_bytes = Batch(), 0
            self._input_sha256.append(reader.sha256)
        if batch.data:
            yield batch

    def _encode(self, batch: Batch, tokens: IO[bytes]) -> None:
        ids, offsets = self._encoding.encoder.encode_flat(batch.texts)
        encoded = BatchIds(ids, offsets.astype(np.int64))
        self._shadow.require(batch, encoded)
        try:
            self._proof.require(batch, encoded)
        except Refusal:
            # The tokenizer's fault, or the encoder's? Only then the reference refuses it too.
            self._shadow.require_all(batch, encoded)
            raise
        self._tally.add(batch, encoded)
        ends = encoded.offsets[1:]
        settings = self._encoding.settings
        if settings.has_separators:
            assert settings.eos_token_id is not None
            ids, ends = encoded.with_separator(settings.eos_token_id)
        tokens.write(ids.astype("<u4", copy=False).data)
        self._ends.append(ends + self._num_tokens)
        self._hashes += batch.hashes
        self._num_tokens += len(ids)
        self._listener(Advance(sum(map(len, batch.data)), len(ids)))

    def _receipt(self, account: Account) -> Receipt:
        return Receipt(
            key=self._task.key,
            input_sha256=self._input_sha256,
            files=receipts.file_identities(self._part),
            account=account.as_dict(),
            matched_removals=self._removals.matched_lists,
            num_documents=len(self._hashes),
            num_tokens=self._num_tokens,
            text_bytes=self._tally.text_bytes,
            longest_run=self._tally.longest_run,
            num_documents_changed_by_normalizer=self._proof.num_changed_by_normalizer,
            num_documents_with_control_text=self._tally.num_with_control_text,
            control_text_examples=self._tally.control_text_examples,
            num_shadowed=self._shadow.num_documents,
            num_decoded=self._proof.num_decoded,
        )
