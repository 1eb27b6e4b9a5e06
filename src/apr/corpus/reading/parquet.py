"""Parquet read a few rows at a time, the columns that are needed and no other.

Of the metadata only row counts and column names are looked at: pyarrow 26 ends the process when
it is asked for a column chunk whose metadata contradicts itself.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from apr.corpus.reading.blocks import input_changed
from apr.corpus.reading.compressed import DamagedStream
from apr.corpus.reading.locations import open_location
from apr.corpus.reading.rows import BadRow, Row
from apr.errors import DamagedFile, FeatureMissing
from apr.files import io_refusals

Cell = Row | BadRow
"""What a row holds, or why it is no document."""

_MAGIC = b"PAR1"
# A dictionary page may repeat one large text in every row of a batch.
_BATCH_ROWS = 16
_BUFFER_BYTES = 1 << 20
_TEXT_TYPES = frozenset({"string", "large_string", "string_view"})


def count_rows(location: str, *, size_bytes: int) -> list[int]:
    """The number of rows in each row group, as the footer says.

    DamagedStream when the footer cannot be read, or cannot be true.

    Refuses: corpus.no-pyarrow, files.not-found, files.io-failed.
    """
    with _opened(location, size_bytes) as parquet:
        return _num_rows(parquet.metadata)


def read_cells(
    location: str,
    *,
    size_bytes: int,
    first_row_group: int,
    num_row_groups: int | None,
    content_field: str,
    group_field: str | None,
    extra_fields: Sequence[str] = (),
) -> Iterator[list[Cell]]:
    """The rows of some row groups in order, a batch at a time; None for all of them.

    Of the extra fields, columns of texts and of lists of texts are read.

    DamagedStream where the rest cannot be read, and where it holds fewer rows than it says.

    Refuses: corpus.column-missing, corpus.input-changed, corpus.no-pyarrow, files.not-found,
    files.io-failed.
    """
    with _opened(location, size_bytes) as parquet:
        # A plan may be older than the file, so the footer is judged again.
        num_rows = _num_rows(parquet.metadata)
        stop = len(num_rows) if num_row_groups is None else first_row_group + num_row_groups
        if stop > len(num_rows):
            raise input_changed(location, f"{len(num_rows)} row groups", f"{stop}")
        _require_column(parquet.schema_arrow.names, content_field, location)
        for index in range(first_row_group, stop):
            num_read = 0
            for cells in _read_group(parquet, index, content_field, group_field, extra_fields):
                num_read += len(cells)
                yield cells
            if num_read != num_rows[index]:
                found = f"row group {index} has {num_read} rows and says {num_rows[index]}"
                raise DamagedStream("damaged", found)


@contextmanager
def _opened(location: str, size_bytes: int) -> Generator[Any]:
    open_parquet, arrow_fault = _import_pyarrow()
    with io_refusals(location), open_location(location) as opened:
        try:
            yield open_parquet(opened, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        except (arrow_fault, OSError, UnicodeDecodeError, KeyError) as err:
            # Arrow calls damage an OSError too, but without the number of a failed system call.
            # A name in the footer may be no text, or name no column.
            if isinstance(err, OSError) and err.errno is not None:
                raise
            opened.seek(max(0, size_bytes - len(_MAGIC)))
            is_whole = opened.read(len(_MAGIC)) == _MAGIC
            raise DamagedStream("damaged" if is_whole else "truncated", str(err)) from err


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # pyright: ignore[reportMissingTypeStubs]
        from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as err:
        raise FeatureMissing(
            "corpus.no-pyarrow",
            "reading Parquet",
            found=str(err),
            expected="the package pyarrow",
            fix="pip install 'apr[parquet]'",
        ) from err
    return parquet.ParquetFile, cast("Any", pyarrow).ArrowException


def _num_rows(metadata: Any) -> list[int]:
    counts: list[int] = [
        metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)
    ]
    # A row group that says too few is read without the others, and nothing fails.
    if min(counts, default=0) < 0 or sum(counts) != metadata.num_rows:
        found = f"row groups of {counts[:20]} rows in a file of {metadata.num_rows}"
        raise DamagedStream("damaged", found)
    return counts


def _require_column(names: list[str], content_field: str, location: str) -> None:
    if names.count(content_field) != 1:
        raise DamagedFile(
            "corpus.column-missing",
            location,
            found=f"{names.count(content_field)} columns {content_field!r}; "
            f"the columns: {', '.join(names) or 'none'}",
            expected="one column with the text",
            fix="name the column with --content-field",
        )


def _read_group(
    parquet: Any,
    index: int,
    content_field: str,
    group_field: str | None,
    extra_fields: Sequence[str],
) -> Iterator[list[Cell]]:
    columns = [content_field]
    if group_field is not None and group_field in parquet.schema_arrow.names:
        columns.append(group_field)
    extras = {name for name in extra_fields if _may_be_extra(parquet.schema_arrow, name)}
    # A type names what stands in the column, whatever pages it is packed in.
    kinds = [_unpacked_type(parquet.schema_arrow.field(name).type) for name in columns]
    for batch in parquet.iter_batches(
        _BATCH_ROWS,
        row_groups=[index],
        columns=sorted({*columns, *extras}),
        use_threads=False,
    ):
        for name, kind in zip(columns, kinds, strict=True):
            if kind not in _TEXT_TYPES:
                reason = "field_not_string" if name == content_field else "group_not_string"
                yield [BadRow(reason, f"the column {name!r} is {kind}")] * batch.num_rows
                break
        else:
            nothing: list[Any] = [None] * batch.num_rows
            texts = _values(batch.column(content_field))
            groups = _values(batch.column(columns[1])) if columns[1:] else nothing
            others = [
                _extra_values(batch.column(name)) if name in extras else nothing
                for name in extra_fields
            ]
            beside = zip(*others, strict=True) if others else [()] * batch.num_rows
            yield [_cell(content_field, *row) for row in zip(texts, groups, beside, strict=True)]


def _may_be_extra(schema: Any, name: str) -> bool:
    if schema.names.count(name) != 1:
        return False
    kind = schema.field(name).type
    # What dictionaries and lists are made of.
    return str(getattr(kind, "value_type", kind)) in _TEXT_TYPES


def _extra_values(column: Any) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [None] * len(column)


def _unpacked_type(kind: Any) -> str:
    is_dictionary = str(kind).startswith("dictionary<")
    return str(kind.value_type if is_dictionary else kind)


def _values(column: Any) -> list[str | bytes | None]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return [_text_or_bytes(value) for value in column.cast("large_binary").to_pylist()]


def _text_or_bytes(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def _cell(
    content_field: str,
    text: str | bytes | None,
    group: str | bytes | None,
    extras: tuple[object, ...],
) -> Cell:
    if text is None:
        return BadRow("field_null", f"{content_field!r} is null")
    if isinstance(text, bytes) or isinstance(group, bytes):
        return BadRow("not_utf8", "the bytes of the cell are not UTF-8")
    return text, group, extras
