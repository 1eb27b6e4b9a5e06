"""A span is what one task reads: a file, whole rows of one, or row groups of one.

Spans follow from the files and `span_bytes` alone, so a plan made again is the same plan. A span
survives JSON: `Span(**json.loads(json.dumps(asdict(span))))` is equal to it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from apr.corpus.reading.blocks import BLOCK_BYTES, RawBlocks
from apr.corpus.reading.compressed import Compression, DamagedStream
from apr.corpus.reading.locations import is_url, open_location
from apr.corpus.reading.parquet import count_rows
from apr.corpus.reading.tree import CorpusFile, Kind
from apr.errors import UsageRefusal
from apr.files import io_refusals

WHOLE_FILES = 1 << 62
"""A size of spans for which no file is cut."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one file that is read without the rest of it."""

    location: str
    """The file, as `apr.corpus.reading.locations.location_text` writes it."""
    kind: Kind
    compression: Compression | None
    start: int
    """Bytes of the file before the span; in Parquet, the share of the rows before it."""
    stop: int
    size_bytes: int
    """Of the whole file, when it was planned."""
    group: str
    in_tree: bool
    first_row: int = 1
    """The number of the span's first row in its file."""
    first_row_group: int = 0
    num_row_groups: int | None = None
    """None for all that the file has."""

    @property
    def num_bytes(self) -> int:
        """How much of the file it is."""
        return self.stop - self.start


def cut_spans(files: Sequence[CorpusFile], *, span_bytes: int) -> Iterator[Span]:
    """The spans of files, in order, each about `span_bytes` where the file can be cut.

    Plain JSON lines are cut where a line begins; a local file larger than a span is read for it,
    as its rows must be counted. Local Parquet is cut between row groups. A text, a compressed
    file and a remote one are one span each.

    Refuses: corpus.span-bytes, corpus.no-pyarrow, files.not-found, files.io-failed.
    """
    if span_bytes < 1:
        raise UsageRefusal(
            "corpus.span-bytes",
            "the spans of the corpus",
            found=span_bytes,
            expected="at least 1 byte",
            fix="ask for larger spans",
        )
    for file in files:
        kind, compression = file.format
        whole = Span(
            location=file.location,
            kind=kind,
            compression=compression,
            start=0,
            stop=file.size_bytes,
            size_bytes=file.size_bytes,
            group=file.group,
            in_tree=file.in_tree,
        )
        can_be_cut = file.size_bytes > span_bytes and not is_url(file.location)
        if can_be_cut and (kind, compression) == ("jsonl", None):
            yield from _cut_lines(whole, span_bytes)
        elif can_be_cut and kind == "parquet":
            yield from _cut_row_groups(whole, span_bytes)
        else:
            yield whole


def span_sha256(span: Span) -> str:
    """The sha256 of a span's bytes, as SpanReader finds it, without its documents.

    Refuses: corpus.input-changed, files.not-found, files.io-failed.
    """
    return span_blocks(span).sha256


def span_blocks(span: Span) -> RawBlocks:
    """The bytes that a span's hash covers: its own, of a Parquet file all."""
    is_share = span.kind == "parquet"
    return RawBlocks(
        span.location,
        start=0 if is_share else span.start,
        stop=span.size_bytes if is_share else span.stop,
        size_bytes=span.size_bytes,
    )


def _cut_lines(whole: Span, span_bytes: int) -> Iterator[Span]:
    start, first_row = 0, 1
    position = num_ends = 0
    with io_refusals(whole.location), open_location(whole.location) as opened:
        while block := opened.read(BLOCK_BYTES):
            counted = 0
            while (end := _line_end(block, start + span_bytes - 1 - position, counted)) >= 0:
                num_ends += block.count(b"\n", counted, end + 1)
                counted = end + 1
                stop = position + counted
                if stop >= whole.size_bytes:
                    break  # No line begins where the file ends.
                yield replace(whole, start=start, stop=stop, first_row=first_row)
                start, first_row = stop, num_ends + 1
            num_ends += block.count(b"\n", counted)
            position += len(block)
    yield replace(whole, start=start, first_row=first_row)


def _line_end(block: bytes, wanted: int, counted: int) -> int:
    return block.find(b"\n", max(wanted, counted))


def _cut_row_groups(whole: Span, span_bytes: int) -> Iterator[Span]:
    try:
        counts = count_rows(whole.location, size_bytes=whole.size_bytes)
    except DamagedStream:
        yield whole  # Its reader meets the damage again and sets it aside.
        return
    start = first_group = 0
    row = first_row = 1
    for index, count in enumerate(counts):
        row += count
        is_last = index + 1 == len(counts)
        stop = whole.size_bytes if is_last else whole.size_bytes * (row - 1) // max(1, sum(counts))
        if is_last or stop - start >= span_bytes:
            yield replace(
                whole,
                start=start,
                stop=stop,
                first_row=first_row,
                first_row_group=first_group,
                num_row_groups=index + 1 - first_group,
            )
            start, first_row, first_group = stop, row, index + 1
