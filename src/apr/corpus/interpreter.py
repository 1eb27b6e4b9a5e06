"""The standard library of the running interpreter: a corpus that every machine has.

It is real code by many authors, openly licensed, and some ten megabytes or more, which is
enough to see a small model learn.
"""

import sysconfig
from dataclasses import replace
from pathlib import Path

from apr.corpus.document import Document
from apr.corpus.reading.account import Account
from apr.corpus.reading.locations import location_text
from apr.corpus.reading.span_reader import SpanReader
from apr.corpus.reading.spans import cut_spans
from apr.corpus.reading.tree import list_tree
from apr.errors import Refusal
from apr.units import format_bytes

MIN_SOURCE_BYTES = 8_000_000

_INSTALLED = frozenset({"site-packages", "dist-packages", "__pycache__"})
# Mapping tables and help texts that programs wrote; a model would learn little but them.
_GENERATED = ("encodings", "pydoc_data")
# The library's own tests, two thirds of all where they are installed, are another kind of text.
_TESTS = frozenset({"test", "tests", "idle_test"})


def interpreter_documents(*, drops: Account, root: Path | None = None) -> list[Document]:
    """The Python sources of the standard library, each under its path inside the library.

    Its own tests and generated tables are left out and counted in `drops`.

    `root` is another library's directory than the running interpreter's.

    Refuses: corpus.interpreter-too-small.
    """
    library = Path(sysconfig.get_path("stdlib")) if root is None else root
    files = list_tree(library, drops=drops, without=_INSTALLED) if library.is_dir() else []
    sources = [file for file in files if file.path.suffix == ".py"]
    size_bytes = sum(file.size_bytes for file in sources)
    if size_bytes < MIN_SOURCE_BYTES:
        raise Refusal(
            "corpus.interpreter-too-small",
            library,
            found=f"{len(sources)} Python files, {format_bytes(size_bytes)}",
            expected=f"at least {format_bytes(MIN_SOURCE_BYTES)} of the standard library",
            fix="install the whole library (Debian, Ubuntu: apt install python3-full) "
            "or use a Python from python.org",
        )
    documents: list[Document] = []
    for file in sources:
        source = location_text(file.path.relative_to(library))
        if file.group in _GENERATED:
            drops.leave_out("generated", source)
            continue
        if _TESTS.intersection(source.split("/")[:-1]):
            drops.leave_out("tests", source)
            continue
        for span in cut_spans([file], span_bytes=file.size_bytes + 1):
            reader = SpanReader(span, account=drops)
            documents += [replace(document, source=source) for document in reader]
    return documents
