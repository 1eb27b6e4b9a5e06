"""`apr tokenize show-batch`: the exact text of any batch of a run, trained already or not yet.

A batch is arithmetic on the run's frozen configuration and the manifest of its shards, so the
functions that feed the training are asked, and nothing is remembered or repeated here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apr.errors import UsageRefusal
from apr.jobs.recorded import recorded_config, require_same_inputs
from apr.progress import Report, silent
from apr.shards.provenance import Row, document_places
from apr.shards.reader import ShardReader
from apr.tokenizer.token_text import TokenText
from apr.train.batches import IGNORED_TARGET, Batch
from apr.train.inputs import Inputs, open_inputs
from apr.train.mixture import BatchOrder
from apr.train.run_record import RunRecord

# Beyond any run, and far from where positions in the data would no longer fit 64 bits.
_MAX_STEP = 1 << 40


@dataclass(frozen=True)
class Piece:
    """What a row holds of one document."""

    document: int
    document_hash: str
    source: str | None
    row: int | None
    first_token: int
    """Place in the stream of the shards."""
    num_tokens: int
    begins_document: bool
    ends_document: bool
    separator: str | None
    """The separator after the text, when it is among the tokens."""
    text: str
    cuts_character: bool
    """Whether the piece begins or ends inside a character, whose bytes are then escaped."""


@dataclass(frozen=True)
class ShownRow:
    """One row of a batch: T + 1 tokens, of which the last T are targets."""

    row: int
    dataset: str
    """The shard directory that it is read from."""
    row_index: int
    """Which row of that data it is."""
    epoch: int
    """Of that data, from 1."""
    first_token: int
    num_tokens: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class ShownBatch:
    """The text of one optimizer step."""

    run_dir: Path
    step: int
    num_steps: int
    manifests_sha256: dict[str, str]
    """Of every dataset of the run, by its directory."""
    sequence_length: int
    rows: tuple[ShownRow, ...]

    def as_dict(self) -> dict[str, Any]:
        """The object that `apr tokenize show-batch --json` prints."""
        return asdict(self) | {"run_dir": str(self.run_dir)}


def show_batch(
    run_dir: Path, *, step: int, row: int | None = None, progress: Report = silent
) -> ShownBatch:
    """The rows of optimizer step `step`, or one of them, as text.

    The manifests must be those of the run, and the shards that are read must have their hashes.

    Refuses: run.not-found, run.record-damaged, run.step, run.row, resume.inputs-changed,
    shards.hash-mismatch, and what opening shards and tokenizer refuses.
    """
    record = RunRecord.load(run_dir)
    config = recorded_config(record)
    if not 1 <= step <= _MAX_STEP:
        raise _outside("run.step", "--step", step, f"1 to {_MAX_STEP}")
    if row is not None and not 0 <= row < config.batch_size:
        raise _outside("run.row", "--row", row, f"0 to {config.batch_size - 1}, the batch's rows")
    inputs = open_inputs(config, verify=False, progress=progress)
    require_same_inputs(record, inputs)
    order = BatchOrder(inputs.data.train, config.batch_size, config.seed)
    rows = range(config.batch_size) if row is None else [row]
    return ShownBatch(
        run_dir=run_dir,
        step=step,
        num_steps=config.num_steps,
        manifests_sha256={str(shards.directory): shards.manifest_sha256 for shards in inputs.train},
        sequence_length=config.seq_length,
        rows=tuple(_show_rows(inputs, order, step=step, rows=rows)),
    )


def _show_rows(
    inputs: Inputs, order: BatchOrder, *, step: int, rows: Sequence[int]
) -> Iterator[ShownRow]:
    batch, (source_indices, visits) = order.batch(step), order.places(step)
    texts = TokenText(inputs.tokenizer)
    shown: dict[int, ShownRow] = {}
    for source_index in np.unique(source_indices[list(rows)]).tolist():
        source = order.mixture.sources[source_index]
        here = [row for row in rows if source_indices[row] == source_index]
        ids = [_row_ids(batch, row) for row in here]
        firsts = [source.first_token(batch.row_indices[row]) for row in here]
        all_pieces = _pieces_of_rows(source.shards, texts, firsts, ids)
        for row, first, row_ids, pieces in zip(here, firsts, ids, all_pieces, strict=True):
            shown[row] = ShownRow(
                row=row,
                dataset=str(source.shards.directory),
                row_index=batch.row_indices[row],
                epoch=1 + int(visits[row]) // source.num_rows,
                first_token=first,
                num_tokens=len(row_ids),
                pieces=pieces,
            )
    yield from (shown[row] for row in rows)


def _pieces_of_rows(
    shards: ShardReader,
    texts: TokenText,
    firsts: Sequence[int],
    ids: Sequence[NDArray[np.uint32]],
) -> Iterator[tuple[Piece, ...]]:
    """The pieces of some rows of one source, whose shards are verified first."""
    spans = [(first, first + len(row_ids)) for first, row_ids in zip(firsts, ids, strict=True)]
    shards.require_hashes(spans)
    documents = [shards.document_numbers(*span) for span in spans]
    places = document_places(shards.directory, np.unique(np.concatenate(documents)).tolist())
    for first, row_ids, row_documents in zip(firsts, ids, documents, strict=True):
        yield tuple(_pieces(shards, texts, places, first, row_ids, row_documents))


def _row_ids(batch: Batch, row: int) -> NDArray[np.uint32]:
    """The ids a row feeds to the model, and after them its last target."""
    num_targets = int((batch.target_ids_BT[row] != IGNORED_TARGET).sum())
    inputs, targets = batch.input_ids_BT[row], batch.target_ids_BT[row]
    return np.append(inputs[:num_targets], targets[num_targets - 1]).astype(np.uint32)


def _pieces(
    shards: ShardReader,
    texts: TokenText,
    places: dict[int, Row],
    first_token: int,
    ids: NDArray[np.uint32],
    documents: NDArray[np.int64],
) -> Iterator[Piece]:
    borders = [0, *(np.flatnonzero(np.diff(documents)) + 1).tolist(), len(ids)]
    for begin, end in pairwise(borders):
        document_index = int(documents[begin])
        start, stop = shards.document_range(document_index)
        piece_ids = ids[begin:end]
        is_separator = piece_ids == shards.manifest.eos_token_id
        data = texts.text(piece_ids[~is_separator])
        text = data.decode("utf-8", "backslashreplace")
        place = places.get(document_index)
        yield Piece(
            document=document_index,
            document_hash=shards.document_hashes[document_index].tobytes().hex(),
            source=place.source if place else None,
            row=place.row if place else None,
            first_token=first_token + begin,
            num_tokens=len(piece_ids),
            begins_document=first_token + begin == start,
            ends_document=first_token + end == stop,
            separator=shards.manifest.eos_token if is_separator.any() else None,
            text=text,
            cuts_character=text.encode("utf-8") != data,
        )


def _outside(id: str, option: str, found: int, expected: str) -> UsageRefusal:
    return UsageRefusal(
        id, option, found=found, expected=expected, fix="name a step and a row that exist"
    )
