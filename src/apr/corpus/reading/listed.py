"""A corpus whose files are listed once and read as often as a job needs, always in one order."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from apr.corpus.reading.account import Account
from apr.corpus.reading.documents import Document, list_files, read_files
from apr.corpus.reading.tree import CorpusFile
from apr.progress import Progress, Report, silent


class ListedCorpus:
    """Documents that can be read several times; `account` is of the first reading.

    A file that changes its size between two readings is refused.

    Refuses: as apr.corpus.reading.documents.list_files and read_files.
    """

    def __init__(
        self,
        paths: Sequence[Path | str],
        *,
        content_field: str = "content",
        group_field: str | None = None,
        exclude: Sequence[str] = (),
        max_quarantined: int | None = 0,
    ) -> None:
        self.account = Account()
        self.paths = tuple(paths)
        self.files = list_files(paths, drops=self.account, exclude=exclude)
        self._content_field = content_field
        self._group_field = group_field
        self._max_quarantined = max_quarantined
        self._was_read = False
        # Of packed files, learned from one reading for the progress of the next.
        self._text_sizes: dict[str, int] = {}

    @property
    def size_bytes(self) -> int:
        """Of all files, as they lie on disk."""
        return sum(file.size_bytes for file in self.files)

    def documents(self, activity: str, progress: Report = silent) -> Iterator[Document]:
        """Every document, in the order of the paths."""
        account = Account() if self._was_read else self.account
        self._was_read = True
        bar = ReadingProgress(activity, self.files, self._text_sizes, progress)
        for document in read_files(
            self.files,
            content_field=self._content_field,
            drops=account,
            group_field=self._group_field,
            max_quarantined=self._max_quarantined,
        ):
            bar.add(document)
            yield document
        bar.finish()


class ReadingProgress:
    """How many bytes of the files were read, told from the documents that came out of them.

    `text_sizes` is what earlier readings learned about packed files, and learns from this one.
    """

    def __init__(
        self,
        activity: str,
        files: Sequence[CorpusFile],
        text_sizes: dict[str, int],
        report: Report,
    ) -> None:
        self._activity = activity
        self._report = report
        self._total_bytes = sum(file.size_bytes for file in files)
        self._text_sizes = text_sizes
        self._files = iter(files)
        self._file: CorpusFile | None = None
        self._finished_bytes = 0
        self._text_size = 0
        self._expected_size = 0.0

    def add(self, document: Document) -> None:
        """Tell that a document was read; they come in the order of the files."""
        while self._file is None or self._file.location != document.source:
            self._leave_file()
            self._file = next(self._files)
            self._expected_size = self._text_sizes.get(
                self._file.location, self._file.size_bytes * _usual_ratio(self._file)
            )
        self._text_size += len(document.text)
        share = min(1.0, self._text_size / max(1.0, self._expected_size))
        done_bytes = self._finished_bytes + int(share * self._file.size_bytes)
        # The last byte counts as read when nothing comes after it.
        self._tell(min(done_bytes, self._total_bytes - 1))

    def finish(self) -> None:
        """Tell that the files were read to their end."""
        self._leave_file()
        self._tell(self._total_bytes)

    def _leave_file(self) -> None:
        if self._file is None:
            return
        if _usual_ratio(self._file) > 1:
            self._text_sizes[self._file.location] = self._text_size
        self._finished_bytes += self._file.size_bytes
        self._text_size = 0

    def _tell(self, done_bytes: int) -> None:
        self._report(Progress(self._activity, done_bytes, self._total_bytes, "bytes"))


def _usual_ratio(file: CorpusFile) -> float:
    """Characters of text that come out of a byte, roughly: it decides no more than an ETA."""
    kind, compression = file.format
    return 4.5 if compression or kind == "parquet" else 1.0
