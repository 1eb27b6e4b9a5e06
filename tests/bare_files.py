"""Shard directories as the Rust tool leaves them: raw ids, sometimes with its manifest."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tests.shard_files import TEXTS
from tests.tokenizer_files import tokenizer

EOS_ID = 259
DOCUMENTS = [tokenizer().encode(text).tolist() for text in TEXTS]


def stream(documents: Sequence[Sequence[int]], policy: str = "after") -> list[int]:
    """Documents in a row with their separators."""
    joined = [id for document in documents for id in [*document, EOS_ID]]
    return joined if policy == "after" else joined[:-1]


def write_bare(directory: Path, *shards: Sequence[int], dtype: str = "<u4") -> Path:
    """Numbered files of raw ids."""
    directory.mkdir(parents=True, exist_ok=True)
    for number, ids in enumerate(shards):
        np.array(ids, dtype).tofile(directory / f"shard-{number:05d}.bin")
    return directory


def write_old_manifest(directory: Path, **fields: Any) -> Path:
    """The manifest of the Rust tool, with the fields that a test needs."""
    value = {"schema": "pretokenize-bin-v1", "tokenizer_dir": "tok", "num_workers": 2} | fields
    path = directory / "manifest.json"
    path.write_text(json.dumps(value))
    return path
