"""Small corpora on disk, and what lies in them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from apr.corpus.reading.account import Account
from apr.corpus.reading.documents import Document, read_documents


def write_tree(root: Path, texts: Mapping[str, str]) -> Path:
    """Files by their paths below `root`."""
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8"))
    return root


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def documents_in(*paths: Path) -> list[Document]:
    return list(read_documents(paths, drops=Account()))


def texts_in(*paths: Path) -> list[str]:
    return [document.text for document in documents_in(*paths)]


def program(number: int, *, lines: int = 40) -> str:
    """Python that resembles no other number's: every name and constant is its own."""
    body = "".join(
        f"    value_{number}_{at} = call_{number}({at * 7 + number}, 'item {number * 31 + at}')\n"
        f"    assert value_{number}_{at} > {number + at}, describe_{number}_{at}\n"
        for at in range(lines // 2)
    )
    return f"def function_{number}(argument_{number}):\n{body}    return argument_{number}\n"
