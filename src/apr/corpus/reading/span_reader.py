"""The documents of one span, in one pass and bounded memory.

Each row is counted when it is met and gets one fate: it is yielded, dropped by a rule with a name,
or quarantined because it claims to be a document and is none. Reading goes on after a bad row; it
ends early only where a compressed or damaged file cannot be read further, which is one row more,
quarantined as `truncated` or `damaged`.
"""

from collections.abc import Iterator, Sequence

from apr.corpus.document import DOCUMENT_LIMIT_BYTES, Document
from apr.corpus.reading.account import Account
from apr.corpus.reading.compressed import DamagedStream, unpack
from apr.corpus.reading.lines import LINE_LIMIT_BYTES, OverlongLine, split_lines
from apr.corpus.reading.parquet import read_cells
from apr.corpus.reading.rows import BadRow, Row, RowParser
from apr.corpus.reading.spans import Span, span_blocks

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class SpanReader:
    """Yields the documents of a span once; `sha256` is then that of its bytes.

    The group of a row is what `group_field` holds; a row without it stands alone. What it holds in
    `extra_fields` comes with the document and is not judged.

    Refuses: corpus.input-changed, corpus.column-missing, corpus.no-pyarrow, files.not-found,
    files.io-failed.
    """

    def __init__(
        self,
        span: Span,
        *,
        content_field: str = "content",
        account: Account,
        group_field: str | None = None,
        extra_fields: Sequence[str] = (),
    ) -> None:
        self._span = span
        self._account = account
        self._content_field = content_field
        self._group_field = group_field
        self._extra_fields = extra_fields
        self._parser = RowParser(
            content_field=content_field, group_field=group_field, extra_fields=extra_fields
        )
        self._blocks = span_blocks(span)

    @property
    def sha256(self) -> str:
        """Of the bytes of the span as they lie in the file."""
        return self._blocks.sha256

    def __iter__(self) -> Iterator[Document]:
        if self._span.kind == "text":
            yield from self._read_text()
        elif self._span.kind == "jsonl":
            yield from self._read_lines()
        else:
            yield from self._read_parquet()
        # A file that changed is seen where its bytes end, which a damaged stream may not reach.
        _ = self.sha256

    def _read_text(self) -> Iterator[Document]:
        span = self._span
        is_too_large = span.num_bytes > DOCUMENT_LIMIT_BYTES
        data = b"" if is_too_large else b"".join(self._blocks)
        # Not before it was read: a file that cannot be opened is no row.
        self._account.num_rows += 1
        if is_too_large:
            found = f"{span.num_bytes} bytes, over {DOCUMENT_LIMIT_BYTES}"
            return self._leave_out_text("too_large", found)
        if b"\0" in data:
            return self._leave_out_text("binary", f"a NUL at byte {data.index(0)}")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as err:
            return self._leave_out_text("not_utf8", str(err))
        self._account.num_byte_order_marks += data.startswith(_BYTE_ORDER_MARK)
        if not text or text.isspace():
            self._account.drop(_blank(text), span.location)
            return
        self._account.num_documents += 1
        yield Document(text, span.location, span.group)

    def _leave_out_text(self, reason: str, found: str) -> None:
        if self._span.in_tree:
            self._account.drop(reason, self._span.location)
            return
        # The user named this file, so it claims to be a text.
        reason = "document_too_large" if reason == "too_large" else reason
        self._account.quarantine(reason, self._span.location, offset=0, found=found)

    def _read_lines(self) -> Iterator[Document]:
        span, account = self._span, self._account
        row, offset = span.first_row - 1, span.start
        try:
            for lines in split_lines(unpack(self._blocks, span.compression)):
                if isinstance(lines, OverlongLine):
                    row += 1
                    account.num_rows += 1
                    found = f"a line of {lines.size_bytes} bytes, over {LINE_LIMIT_BYTES}"
                    self._quarantine("line_too_long", row, offset, found)
                    offset += lines.size_bytes + 1
                    continue
                account.num_rows += len(lines)
                for line in lines:
                    row += 1
                    document = self._read_row(line, row, offset)
                    offset += len(line) + 1
                    if document is not None:
                        yield document
        except DamagedStream as fault:
            account.num_rows += 1
            self._quarantine(fault.reason, row + 1, offset, fault.found)

    def _read_row(self, line: bytes, row: int, offset: int) -> Document | None:
        if offset == 0 and line.startswith(_BYTE_ORDER_MARK):
            self._account.num_byte_order_marks += 1
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line or line.isspace():
            self._account.drop("blank_line", self._span.location, row)
            return None
        try:
            parsed = self._parser.parse(line)
        except BadRow as fault:
            self._quarantine(fault.reason, row, offset, fault.found)
            return None
        # JSON spells no text in fewer bytes than it has.
        return self._accept(parsed, row, offset, max_bytes=len(line))

    def _read_parquet(self) -> Iterator[Document]:
        span, account = self._span, self._account
        row = span.first_row - 1
        try:
            for cells in read_cells(
                span.location,
                size_bytes=span.size_bytes,
                first_row_group=span.first_row_group,
                num_row_groups=span.num_row_groups,
                content_field=self._content_field,
                group_field=self._group_field,
                extra_fields=self._extra_fields,
            ):
                account.num_rows += len(cells)
                for cell in cells:
                    row += 1
                    if isinstance(cell, BadRow):
                        self._quarantine(cell.reason, row, None, cell.found)
                        continue
                    document = self._accept(cell, row, None, max_bytes=4 * len(cell[0]))
                    if document is not None:
                        yield document
        except DamagedStream as fault:
            account.num_rows += 1
            self._quarantine(fault.reason, row + 1, None, fault.found)

    def _accept(
        self, parsed: Row, row: int, offset: int | None, *, max_bytes: int
    ) -> Document | None:
        """The document, unless it is blank or too large; its text has at most `max_bytes`."""
        span = self._span
        text, group, extras = parsed
        size_bytes = max_bytes
        if max_bytes > DOCUMENT_LIMIT_BYTES:
            size_bytes = len(text.encode("utf-8"))
        if size_bytes > DOCUMENT_LIMIT_BYTES:
            found = f"a text of {size_bytes} bytes, over {DOCUMENT_LIMIT_BYTES}"
            self._quarantine("document_too_large", row, offset, found)
            return None
        if not text or text.isspace():
            self._account.drop(_blank(text), span.location, row)
            return None
        self._account.num_documents += 1
        return Document(text, span.location, group or f"{span.group}:{row}", row, extras)

    def _quarantine(self, reason: str, row: int, offset: int | None, found: str) -> None:
        self._account.quarantine(reason, self._span.location, row, offset=offset, found=found)


def _blank(text: str) -> str:
    return "whitespace" if text else "empty"
