"""Parquet read a few rows at a time, the columns that are needed and no other.

A file is cut between row groups. Its spans tile it from the first byte to the last, footer
included, so their hashes together are a hash of the file.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from os import SEEK_END
from typing import Any, cast

from apr.corpus.blocks import input_changed
from apr.corpus.compressed import DamagedStream
from apr.corpus.locations import open_location
from apr.corpus.rows import BadRow
from apr.errors import DamagedFile, FeatureMissing
from apr.files import io_refusals

Cell = tuple[str, str | None] | BadRow
"""The text of a row and its group, or why it is no document."""

_MAGIC = b"PAR1"
# A dictionary page may repeat one large text in every row of a batch.
_BATCH_ROWS = 64
_BUFFER_BYTES = 1 << 20
_TEXT_TYPES = frozenset({"string", "large_string", "string_view"})


def list_row_groups(location: str, *, size_bytes: int) -> list[tuple[int, int]]:
    """For each row group the byte it ends before and its number of rows, as the footer says.

    DamagedStream when the footer cannot be read, or cannot be true.

    Refuses: corpus.no-pyarrow, files.not-found, files.io-failed.
    """
    with _opened(location, size_bytes) as parquet:
        return _row_groups(parquet.metadata, size_bytes)


def read_cells(
    location: str,
    *,
    size_bytes: int,
    row_groups: range,
    content_field: str,
    group_field: str | None,
) -> Iterator[list[Cell]]:
    """The rows of some row groups in order, a batch at a time.

    DamagedStream where the rest cannot be read, and where it holds fewer rows than it says.

    Refuses: corpus.column-missing, corpus.input-changed, corpus.no-pyarrow, files.not-found,
    files.io-failed.
    """
    with _opened(location, size_bytes) as parquet:
        # A plan may be older than the file, so the footer is judged again.
        groups = _row_groups(parquet.metadata, size_bytes)
        if row_groups.stop > len(groups):
            raise input_changed(location, f"{len(groups)} row groups", f"{row_groups.stop}")
        _require_column(parquet.schema_arrow.names, content_field, location)
        for index in row_groups:
            num_read = 0
            for cells in _read_group(parquet, index, content_field, group_field):
                num_read += len(cells)
                yield cells
            if num_read != groups[index][1]:
                found = f"row group {index} has {num_read} rows and says {groups[index][1]}"
                raise DamagedStream("damaged", found)


@contextmanager
def _opened(location: str, size_bytes: int) -> Generator[Any]:
    open_parquet, arrow_fault = _import_pyarrow()
    with io_refusals(location), open_location(location) as opened:
        if opened.seek(0, SEEK_END) != size_bytes:
            raise input_changed(location, f"{opened.tell()} bytes", f"{size_bytes} bytes")
        try:
            yield open_parquet(opened, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        except (arrow_fault, OSError) as err:
            # Arrow calls damage an OSError too, but without the number of a failed system call.
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


def _row_groups(metadata: Any, size_bytes: int) -> list[tuple[int, int]]:
    groups: list[tuple[int, int]] = []
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        end = 0
        for number in range(group.num_columns):
            column = group.column(number)
            start = column.data_page_offset
            if column.dictionary_page_offset is not None:
                start = min(start, column.dictionary_page_offset)
            end = max(end, start + column.total_compressed_size)
            if start < 0 or column.total_compressed_size < 0 or end > size_bytes:
                found = f"row group {index} lies from byte {start} to {end} of {size_bytes}"
                raise DamagedStream("damaged", found)
        if group.num_rows < 0:
            raise DamagedStream("damaged", f"row group {index} has {group.num_rows} rows")
        groups.append((end, group.num_rows))
    return groups


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
    parquet: Any, index: int, content_field: str, group_field: str | None
) -> Iterator[list[Cell]]:
    columns = [content_field]
    if group_field is not None and group_field in parquet.schema_arrow.names:
        columns.append(group_field)
    # A type names what stands in the column, whatever pages it is packed in.
    kinds = [_unpacked_type(parquet.schema_arrow.field(name).type) for name in columns]
    for batch in parquet.iter_batches(
        _BATCH_ROWS, row_groups=[index], columns=columns, use_threads=False
    ):
        for name, kind in zip(columns, kinds, strict=True):
            if kind not in _TEXT_TYPES:
                reason = "field_not_string" if name == content_field else "group_not_string"
                yield [BadRow(reason, f"the column {name!r} is {kind}")] * batch.num_rows
                break
        else:
            values = [_values(batch.column(name)) for name in columns]
            yield [_cell(content_field, *row) for row in zip(*values, strict=True)]


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


def _cell(content_field: str, text: str | bytes | None, group: str | bytes | None = None) -> Cell:
    if text is None:
        return BadRow("field_null", f"{content_field!r} is null")
    if isinstance(text, bytes) or isinstance(group, bytes):
        return BadRow("not_utf8", "the bytes of the cell are not UTF-8")
    return text, group
